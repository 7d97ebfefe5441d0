package vmm

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/diskboot"
	"github.com/huskvm/husk/devices/disk"
)

// A DiskKernel is what a disk has to boot: its kernel, with its initrds, its version
// and its modules, and the command line that the image's own boot loader would give.
// All of it is read from the disk while that is open.
type DiskKernel struct {
	*diskboot.Found
	disk *disk.Disk
}

// LookAtDisk finds on a disk what New would find there if it is the first one and
// no kernel is given. To the command line, New adds what Config.Kernel says.
//
// The disk is open read-only until Close, whatever spec says of that, and locked as
// by a reader: so New cannot open it to write to it before, nor can LookAtDisk
// while a machine does. log receives what the disk has to say; nil discards it.
// Errors are ErrConfig.
func LookAtDisk(spec disk.Spec, log *slog.Logger) (*DiskKernel, error) {
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openForReading(spec, log)
	if err != nil {
		return nil, err
	}
	found, err := findOn(d)
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	return &DiskKernel{found, d}, nil
}

// Close closes the disk.
func (k *DiskKernel) Close() error { return k.disk.Close() }

// findKernel looks for what to boot on the first disk, where c names no kernel. It
// tells how that was found, and what was odd.
func (c *Config) findKernel(disks []*disk.Disk) ([]string, error) {
	if c.Kernel.ReaderAt != nil || len(disks) == 0 {
		return nil, nil
	}
	found, err := findOn(disks[0])
	if err != nil {
		return nil, err
	}
	for _, line := range found.Account() {
		c.Log.Info("found on the disk", "what", line)
	}
	for _, note := range found.Notes {
		c.Log.Warn("odd on the disk", "what", note)
	}
	c.Kernel = found.Kernel
	if len(c.Initrds) == 0 {
		c.Initrds = found.Initrds
	}
	if c.CommandLine == "" {
		c.CommandLine = diskboot.AddConsole(found.CommandLine, "ttyS0")
		// Who looks at a panic is husk: the guest shall not stand still with it.
		if !strings.Contains(" "+c.CommandLine, " panic=") {
			c.CommandLine = "panic=-1 " + c.CommandLine
		}
		if c.Serial == nil && c.Console != nil { // what the user sees comes last
			c.CommandLine = diskboot.AddConsole(c.CommandLine, "hvc0")
		}
	}
	return append([]string{found.Origin}, found.Notes...), nil
}

// findOn looks for what to boot on a disk.
func findOn(d *disk.Disk) (*diskboot.Found, error) {
	found, err := diskboot.Find(boot.Source{Name: d.Spec().File, Size: d.Size(), ReaderAt: diskReader{d}})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return found, nil
}

// openForReading opens a disk as a machine does, but not to write to it.
func openForReading(spec disk.Spec, log *slog.Logger) (*disk.Disk, error) {
	spec.ReadOnly, spec.Snapshot = true, false
	d, err := disk.Open(spec, log)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return d, nil
}

// diskReader is a disk as an io.ReaderAt.
type diskReader struct{ *disk.Disk }

// ReadAt implements io.ReaderAt.
func (r diskReader) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), max(r.Size()-off, 0))
	if err := r.Disk.ReadAt([][]byte{p[:n]}, off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}
