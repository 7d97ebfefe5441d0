package disk

import (
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/disk/qcow2"
)

// Create makes a new qcow2 image for a disk of size bytes, a multiple of 512. A
// file that is there already is left alone, and the error is fs.ErrExist.
func Create(path string, size int64, o qcow2.CreateOptions) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	f := &file{path: path, fd: fd, cache: Writeback, align: 1, memAlign: 1}
	err = qcow2.Create(f, size, o)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("create %s: %w", path, err)
	}
	return nil
}

// newOverlay puts an empty image over base, in a file that has no name and is
// gone when it is closed. It closes base when it fails.
func newOverlay(base backend, log *slog.Logger) (backend, error) {
	f, err := tempFile()
	if err == nil {
		if err = qcow2.Create(f, base.Size(), qcow2.CreateOptions{}); err != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		_ = base.Close()
		return nil, err
	}
	q, err := qcow2.Open(f, qcow2.Options{Base: base, PunchHoles: true, Log: log})
	if err != nil {
		return nil, err
	}
	return q, nil
}

// tempFile opens a nameless file in $TMPDIR or /var/tmp, which, unlike /tmp, is
// seldom memory. Nothing in it survives, so it is never synced.
func tempFile() (*file, error) {
	dir := os.Getenv("TMPDIR")
	if dir == "" {
		dir = "/var/tmp"
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil { // not every file system has files without a name
		t, err := os.CreateTemp(dir, "husk-overlay-*")
		if err != nil {
			return nil, fmt.Errorf("%w; set TMPDIR to a folder with room", err)
		}
		defer t.Close()
		if err := os.Remove(t.Name()); err != nil {
			return nil, err
		}
		if fd, err = unix.FcntlInt(t.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name(), err)
		}
	}
	return &file{path: dir, fd: fd, cache: Unsafe, align: 1, memAlign: 1}, nil
}
