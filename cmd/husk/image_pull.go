package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/image"
)

// pullFlags are the flags of what fetches an image.
type pullFlags struct {
	platform string
	mirrors  []string
	insecure bool
	quiet    bool
}

func (f *pullFlags) define(fs *pflag.FlagSet) {
	fs.StringVar(&f.platform, "platform", "", "the `PLATFORM` to take of an image for several: OS/ARCH[/VARIANT] (default linux/amd64)")
	fs.StringArrayVar(&f.mirrors, "mirror", nil, "ask this mirror before the image's registry: `URL`, [https://]HOST[:PORT][/PATH]; repeatable")
	fs.BoolVar(&f.insecure, "insecure", false, "allow plain HTTP to registries, and certificates that nobody vouches for")
}

// options are what the flags and the user's settings say.
func (f *pullFlags) options(e *env) (o image.PullOptions, err error) {
	o = image.PullOptions{Mirrors: f.mirrors, Insecure: f.insecure, DockerHost: e.getenv("DOCKER_HOST")}
	if f.platform != "" {
		if o.Platform, err = image.ParsePlatform(f.platform); err != nil {
			return o, usagef("--platform: %w", err)
		}
	}
	if o.Settings, err = image.LoadSettings(image.SettingsFile(e.getenv)); err != nil {
		return o, err
	}
	return o, nil
}

// openImages opens the user's store of images.
func openImages(e *env) (*image.Store, error) {
	dir, err := image.DefaultDir(e.getenv)
	if err != nil {
		return nil, err
	}
	return image.Open(dir)
}

// interrupted is the exit code of a verb that a signal has ended; else the error stays.
func interrupted(ctx context.Context, err error) (int, error) {
	if sig := interruptedBy(ctx); err != nil && sig != 0 {
		return 128 + int(sig), nil
	}
	return exitOK, err
}

func pullVerb() verb {
	return verb{
		name:  "pull",
		args:  "[flags] NAME...",
		short: "fetch container images",
		long: `Fetches images into the user's store, from where husk run takes them. NAME is one of
  debian, debian:12, debian@sha256:…      of Docker Hub
  registry.example.com/team/app:1         of another registry
  docker-daemon:NAME                      of Docker's daemon on this host (DOCKER_HOST)
  docker-archive:FILE[:NAME]              of a file that docker save wrote
  oci:DIR[:TAG], oci-archive:FILE[:TAG]   of an OCI layout
All that comes is verified by its digest. An interrupted pull is gone on with by the next.

Registries are asked by HTTPS, those of this host (localhost) by HTTP, too. Logins and
credential helpers are those of docker login, in ~/.docker/config.json. Mirrors and
insecure registries can be named in $XDG_CONFIG_HOME/husk/config.yaml; docs/images.md
shows how.`,
		examples: `husk pull debian:12
# A registry of this host, and an image of Docker's
husk pull localhost:5000/app docker-daemon:app:latest
# Ask a mirror first
husk pull --mirror https://mirror.example.com debian`,
		define: func(fs *pflag.FlagSet) runner {
			f := &pullFlags{}
			f.define(fs)
			fs.BoolVarP(&f.quiet, "quiet", "q", false, "print only the images' IDs")
			return f.run
		},
	}
}

// run pulls images.
func (f *pullFlags) run(ctx context.Context, e *env, names []string) (int, error) {
	if len(names) == 0 {
		return 0, usagef("no NAME of an image given")
	}
	o, err := f.options(e)
	if err != nil {
		return 0, err
	}
	s, err := openImages(e)
	if err != nil {
		return 0, err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	for _, name := range names {
		if err := f.pull(ctx, e, s, name, o); err != nil {
			return interrupted(ctx, err)
		}
	}
	return exitOK, nil
}

// pull pulls one image and says what came of it.
func (f *pullFlags) pull(ctx context.Context, e *env, s *image.Store, name string, o image.PullOptions) error {
	src, err := image.ParseSource(name)
	if err != nil {
		return err
	}
	if !f.quiet {
		progress := newPullProgress(e.stderr, src.String())
		defer progress.close()
		o.Progress = progress
	}
	before := map[string]string{}
	if list, err := s.List(); err == nil {
		for _, i := range list {
			before[i.ID.Hex] = strings.Join(i.Names, " ") + strings.Join(i.Digests, " ")
		}
	}
	i, err := s.Pull(ctx, name, o)
	if err != nil {
		return err
	}
	if progress, ok := o.Progress.(*pullProgress); ok {
		progress.close()
	}
	if f.quiet {
		fmt.Fprintln(e.stdout, i.ID)
		return nil
	}
	if i.Digest.Hex != "" {
		fmt.Fprintf(e.stdout, "Digest: %s\n", i.Digest)
	}
	status := "Downloaded newer image for"
	if before[i.ID.Hex] == strings.Join(i.Names, " ")+strings.Join(i.Digests, " ") {
		status = "Image is up to date for"
	}
	fmt.Fprintf(e.stdout, "Status: %s %s\n", status, src)
	if src.Transport == image.FromRegistry {
		fmt.Fprintln(e.stdout, src.Reference)
	} else {
		fmt.Fprintln(e.stdout, i)
	}
	return nil
}
