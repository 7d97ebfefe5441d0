package smoke

import (
	"errors"
	"fmt"
	"io"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/ondisk"
	"github.com/huskvm/husk/vmm"
)

// drivers are the modules that husk-init needs in the case's guest. They are read until
// the closer is closed.
func (c *Case) drivers() ([]modules.Module, io.Closer, error) {
	if c.Kernel != "" {
		list, err := guestinit.Modules(c.Kernel, c.Modules)
		return list, io.NopCloser(nil), err
	}
	spec, err := disk.ParseSpec(throwaway(c.Disks[0]))
	if err != nil {
		return nil, nil, err
	}
	image, err := vmm.LookAtDisk(spec, nil)
	if err != nil {
		return nil, nil, err
	}
	list, err := ondisk.Modules(image, c.Modules)
	if err == nil && len(image.Initrds)+len(c.Initrds) == 0 {
		err = fmt.Errorf("%s: its kernel has no initrd, and husk-init would have nothing to start behind itself; give one with --initrd", spec.File)
	}
	if err != nil {
		return nil, nil, errors.Join(err, image.Close())
	}
	return list, image, nil
}
