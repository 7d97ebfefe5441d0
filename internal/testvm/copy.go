package testvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/huskvm/husk/internal/agent"
)

// CopyIn copies a file or folder of this host to a path of the guest, which is what
// it is called there; folders above it are made. A folder that is there is added to.
func (g *Guest) CopyIn(ctx context.Context, from, to string) error {
	to, err := guestPath(to)
	if err != nil {
		return err
	}
	// A link is what it leads to, under its own name.
	if from, err = filepath.Abs(from); err != nil {
		return err
	}
	if from, err = filepath.EvalSymlinks(from); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(from))
	if err != nil {
		return err
	}
	defer root.Close()
	base := filepath.Base(from)
	return g.With(ctx, func(ctx context.Context, client *agent.Client) error {
		return agent.Piped(
			func(w io.Writer) error { return agent.PackAs(w, root, base, strings.TrimPrefix(to, "/")) },
			func(r io.Reader) error { return client.Upload(ctx, "/", r) },
		)
	})
}

// CopyOut copies a file or folder of the guest to a path of this host, as CopyIn does.
// Whatever the guest sends, nothing but that is written. In a folder, the guest's links
// lead where the guest says.
func (g *Guest) CopyOut(ctx context.Context, from, to string) error {
	from, err := guestPath(from)
	if err != nil {
		return err
	}
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	return g.With(ctx, func(ctx context.Context, client *agent.Client) error {
		r, w := io.Pipe()
		downloaded := make(chan error, 1)
		go func() {
			err := client.Download(ctx, from, w)
			_ = w.CloseWithError(err)
			downloaded <- err
		}()
		defer context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })()
		err := agent.UnpackAs(to, path.Base(from), r, false, agent.Unpack)
		_ = r.CloseWithError(agent.ErrGivenUp)
		if e := <-downloaded; e != nil && !errors.Is(e, agent.ErrGivenUp) {
			return e
		}
		return err
	})
}

// guestPath checks a path of the guest.
func guestPath(name string) (string, error) {
	if clean := path.Clean(name); path.IsAbs(name) && clean != "/" {
		return clean, nil
	}
	return "", fmt.Errorf("path %q in the guest: it must be absolute, and not the root", name)
}
