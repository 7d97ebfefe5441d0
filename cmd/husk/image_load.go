package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/image"
	"github.com/huskvm/husk/internal/term"
)

// loadFlags are the flags of husk load.
type loadFlags struct {
	input    string
	name     string
	platform string
	quiet    bool
}

func loadVerb() verb {
	return verb{
		name:  "load",
		args:  "[flags]",
		short: "load container images from an archive",
		long: `Loads all images of an archive into the user's store: what docker save or husk save
writes, or an OCI layout, as a tar or a folder. A tar may be compressed (gzip, zstd, xz,
bzip2). Without -i it is read from standard input.`,
		examples: `husk load -i debian.tar.gz
docker save app | husk load`,
		define: func(fs *pflag.FlagSet) runner {
			f := &loadFlags{}
			fs.StringVarP(&f.input, "input", "i", "", "read from this `FILE` (default: standard input)")
			fs.StringVarP(&f.name, "tag", "t", "", "give the archive's only image this `NAME`")
			fs.StringVar(&f.platform, "platform", "", "the `PLATFORM` to take of an image for several: OS/ARCH[/VARIANT] (default linux/amd64, or the only one)")
			fs.BoolVarP(&f.quiet, "quiet", "q", false, "do not tell how it goes")
			return f.run
		},
	}
}

func (f *loadFlags) run(ctx context.Context, e *env, args []string) (int, error) {
	if err := noArgs(args); err != nil {
		return 0, err
	}
	p := pullFlags{platform: f.platform}
	o, err := p.options(e)
	if err != nil {
		return 0, err
	}
	in := e.stdin
	if f.input != "" {
		if in, err = image.OpenArchive(f.input); err != nil {
			return 0, err
		}
		defer in.Close()
	} else if term.IsTerminal(in) {
		return 0, usagef("standard input is a terminal; name a file with -i")
	}
	s, err := openImages(e)
	if err != nil {
		return 0, err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	if !f.quiet {
		progress := newPullProgress(e.stderr, cmp.Or(f.input, "standard input"))
		progress.list = false // an archive may have many images, and is read fast
		defer progress.close()
		o.Progress = progress
	}
	list, err := s.Load(ctx, in, f.name, o)
	if progress, ok := o.Progress.(*pullProgress); ok {
		progress.close()
	}
	for _, i := range list { // if it failed, those before
		printLoaded(e, i)
	}
	return interrupted(ctx, err)
}

// printLoaded says what an image that was loaded is called.
func printLoaded(e *env, i *image.Image) {
	for _, name := range i.Names {
		fmt.Fprintf(e.stdout, "Loaded image: %s\n", name)
	}
	if len(i.Names) == 0 {
		fmt.Fprintf(e.stdout, "Loaded image ID: %s\n", i.ID)
	}
}
