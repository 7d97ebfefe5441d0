package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/image"
)

func rmiVerb() verb {
	return verb{
		name:  "rmi",
		args:  "[flags] IMAGE...",
		short: "remove container images",
		long: `Takes a name from an image. With its last name the image is removed, and with it the
layers and root file systems that no other image needs. IMAGE is a name, or an ID or the
beginning of one. What is being pulled meanwhile stays, and machines that run the image
go on.`,
		examples: `husk rmi debian:12
husk rmi -f 3ed8f3fa1a7e`,
		define: func(fs *pflag.FlagSet) runner {
			force := fs.BoolP("force", "f", false, "remove an image by its ID though several repositories have names for it; images that are not there are no error")
			return func(ctx context.Context, e *env, names []string) (int, error) {
				return removeImages(ctx, e, names, *force)
			}
		},
	}
}

// removeImages removes what it can.
func removeImages(ctx context.Context, e *env, names []string, force bool) (int, error) {
	if len(names) == 0 {
		return 0, usagef("no IMAGE given")
	}
	s, err := openImages(e)
	if err != nil {
		return 0, err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	var failed []error
	for _, name := range names {
		done, err := s.Remove(ctx, name, force)
		for _, name := range done.Untagged {
			fmt.Fprintf(e.stdout, "Untagged: %s\n", name)
		}
		for _, id := range done.Deleted {
			fmt.Fprintf(e.stdout, "Deleted: %s\n", id)
		}
		if force && errors.Is(err, image.ErrNotFound) {
			err = nil
		}
		failed = append(failed, err)
	}
	return interrupted(ctx, errors.Join(failed...))
}
