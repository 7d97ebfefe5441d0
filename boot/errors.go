package boot

import (
	"errors"
	"fmt"
)

// The reasons for which an image, an initramfs or a command line is refused.
// The errors that carry them name the file, and what to do.
var (
	ErrNotKernel    = errors.New("not a kernel")
	ErrTruncated    = errors.New("cut short")
	ErrMalformed    = errors.New("malformed kernel image")
	ErrArchitecture = errors.New("wrong architecture")
	ErrUnsupported  = errors.New("kernel image of an unsupported kind")
	ErrNoRoom       = errors.New("no room in guest memory")
	ErrCommandLine  = errors.New("bad kernel command line")
	ErrInitrd       = errors.New("bad initramfs")
	ErrMemoryMap    = errors.New("bad memory map")
)

// refuse is an error about the named file: what kind of fault, and the detail.
func refuse(name string, kind error, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", name, kind, fmt.Sprintf(format, args...))
}
