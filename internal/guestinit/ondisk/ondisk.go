// Package ondisk finds the drivers that husk-init needs in the guest of a disk image:
// those of the image's own kernel.
package ondisk

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/vmm"
)

// Modules are guestinit.Modules for a disk image's own kernel: from the image, which stays
// open while they are read, or from dir, which has them or a folder of the kernel's version
// with them.
func Modules(image *vmm.DiskKernel, dir string, names ...string) ([]modules.Module, error) {
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
	return guestinit.ModulesOf(tree, names...)
}
