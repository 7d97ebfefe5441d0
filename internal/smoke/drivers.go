package smoke

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/guestinit"
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
	list, err := imageDrivers(image, c.Modules)
	if err == nil && len(image.Initrds)+len(c.Initrds) == 0 {
		err = fmt.Errorf("%s: its kernel has no initrd, and husk-init would have nothing to start behind itself; give one with --initrd", spec.File)
	}
	if err != nil {
		return nil, nil, errors.Join(err, image.Close())
	}
	return list, image, nil
}

// imageDrivers are those of a disk image's own kernel: from the image, or from dir, which
// has them or a folder of the kernel's version with them.
func imageDrivers(image *vmm.DiskKernel, dir string) ([]modules.Module, error) {
	var files fs.FS
	name := dir
	if dir == "" {
		own, err := image.Modules()
		if err != nil {
			return nil, err
		}
		files, name = own, own.String()
	} else {
		version, err := image.Version()
		if err != nil {
			return nil, err
		}
		files = os.DirFS(dir)
		if here, err := modules.IsTree(files); err == nil && !here {
			name = filepath.Join(dir, version)
			files = os.DirFS(name)
		}
	}
	tree, err := modules.OpenFS(files, name)
	if err != nil {
		return nil, err
	}
	return guestinit.ModulesOf(tree)
}
