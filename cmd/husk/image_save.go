package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/image"
	"github.com/huskvm/husk/internal/term"
)

// saveFlags are the flags of husk save.
type saveFlags struct {
	output string
	format string
}

func saveVerb() verb {
	return verb{
		name:  "save",
		args:  "[flags] IMAGE...",
		short: "write container images to an archive",
		long: `Writes images to a tar, each with the name it is given by; by its ID it has none there.
Formats:
  docker-archive    docker load takes it, and husk load
  oci-archive, oci  a tar of an OCI layout, with layers and manifests as they came
  oci-dir           an OCI layout: -o names a folder, which must be empty or not there
If it fails, nothing is left.`,
		examples: `husk save -o debian.tar debian:12
husk save app | docker load
husk save --format oci-dir -o layout app:1 app:2`,
		define: func(fs *pflag.FlagSet) runner {
			f := &saveFlags{}
			fs.StringVarP(&f.output, "output", "o", "", "write to this `FILE` (default: standard output)")
			fs.StringVar(&f.format, "format", string(image.DockerArchive), "the `FORMAT` to write: docker-archive, oci-archive, oci, oci-dir")
			return f.run
		},
	}
}

func (f *saveFlags) run(ctx context.Context, e *env, names []string) (int, error) {
	if len(names) == 0 {
		return 0, usagef("no IMAGE given")
	}
	format := image.Format(f.format)
	switch format {
	case "oci":
		format = image.OCIArchive
	case image.DockerArchive, image.OCIArchive:
	case image.OCIFolder:
		if f.output == "" {
			return 0, usagef("--format %s needs a folder to write to; name one with -o", format)
		}
	default:
		return 0, usagef("--format %q: must be one of docker-archive, oci-archive, oci, oci-dir", f.format)
	}
	if out, ok := e.stdout.(*os.File); f.output == "" && ok && term.IsTerminal(out) {
		return 0, usagef("standard output is a terminal; name a file with -o")
	}
	s, err := openImages(e)
	if err != nil {
		return 0, err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	return interrupted(ctx, f.save(ctx, e, s, names, format))
}

// save writes to where the flags say.
func (f *saveFlags) save(ctx context.Context, e *env, s *image.Store, names []string, format image.Format) error {
	switch {
	case format == image.OCIFolder:
		return s.SaveFolder(ctx, f.output, names)
	case f.output == "":
		return s.Save(ctx, e.stdout, names, format)
	}
	if info, err := os.Lstat(f.output); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return fmt.Errorf("%s: is a directory; name a file in it", f.output)
		}
		out, err := create(f.output) // a device, a pipe or a link stays what it is
		if err != nil {
			return err
		}
		return errors.Join(s.Save(ctx, out, names, format), out.Close())
	}
	return replaceWhole(f.output, func(w io.Writer) error { return s.Save(ctx, w, names, format) })
}

// replaceWhole writes a file that is there when it is whole, or not at all.
func replaceWhole(path string, write func(io.Writer) error) (err error) {
	draft, err := draftBeside(path)
	if err != nil {
		return err
	}
	err = write(draft)
	if err == nil {
		err = draft.Sync() // or the name could last, and the content not
	}
	err = errors.Join(err, draft.Close())
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		_ = os.Remove(draft.Name())
	}
	return err
}

// draftBeside makes a new file in the folder of path. Unlike os.CreateTemp's, who may read
// it is up to the umask, as with any output.
func draftBeside(path string) (*os.File, error) {
	for {
		name := filepath.Join(filepath.Dir(path), fmt.Sprintf(".husk-save-%x", rand.Uint64()))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, os.ErrExist) {
			return f, err
		}
	}
}
