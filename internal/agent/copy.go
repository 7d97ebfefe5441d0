package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/yamux"
)

// ErrFiles wraps what a guest says when it cannot copy files.
var ErrFiles = errors.New("the guest could not copy")

// ErrPowerOff wraps what a guest says when it cannot power off.
var ErrPowerOff = errors.New("the guest could not power off")

// Upload unpacks a tar into a folder of the guest, which must be there: dir is an
// absolute path in the root of the guest's first process. Folders that are there
// stay, files are replaced. Modes and times are kept, owners are not: all is root's. Links
// of the guest that lead out of dir are not followed. An ErrFiles says which path
// failed, and why. Any other error is the tar's reader's or as Run has it.
func (c *Client) Upload(ctx context.Context, dir string, tar io.Reader) error {
	return c.upload(ctx, dir, tar, false)
}

// UploadOwned is Upload with the owners of the tar, which are numbers.
func (c *Client) UploadOwned(ctx context.Context, dir string, tar io.Reader) error {
	return c.upload(ctx, dir, tar, true)
}

func (c *Client) upload(ctx context.Context, dir string, tar io.Reader, owners bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A tar that breaks off must not look like one that has ended.
	in := readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil { // Upload has returned
			return 0, context.Cause(ctx)
		}
		n, err := tar.Read(p)
		if err != nil && !errors.Is(err, io.EOF) {
			cancel(err)
		}
		return n, err
	})
	end, err := c.do(ctx, Command{op: opUpload, owners: owners, Dir: dir, Stdin: in})
	return said(ErrFiles, end, err)
}

// Download writes a file or folder of the guest to tar, with what is below it,
// named by its last element: path is absolute, in the root of the guest's first
// process. A path that ends in "/." is the folder's content alone. What is neither a
// file, a folder nor a symbolic link is left out. Errors are as Upload's; the tar is of
// no use then. It is the guest's, and to be trusted as far: see Unpack.
func (c *Client) Download(ctx context.Context, path string, tar io.Writer) error {
	end, err := c.do(ctx, Command{op: opDownload, Dir: path, Stdout: tar})
	return said(ErrFiles, end, err)
}

// PowerOff has the guest power off: at once where husk-init is the first process,
// else by the guest's own poweroff, which takes its time. It returns when that
// has begun, or the connection has ended by it. An ErrPowerOff is a guest without
// such a program; the machine's power button is another way.
func (c *Client) PowerOff(ctx context.Context) error {
	if c.session.IsClosed() {
		return c.blame(yamux.ErrSessionShutdown)
	}
	end, err := c.do(ctx, Command{op: opPowerOff})
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrSilent) {
		return nil // the connection went with the guest
	}
	return said(ErrPowerOff, end, err)
}

// said makes an error of what the guest says of a failure.
func said(kind error, end outcome, err error) error {
	if err == nil && end.Error != "" {
		return fmt.Errorf("%w: %s", kind, printable(end.Error))
	}
	return err
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
