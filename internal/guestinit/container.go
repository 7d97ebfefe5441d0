package guestinit

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/huskvm/husk/boot/modules"
)

// Needs are what a container's guest needs of its kernel, besides a vsock to be
// commanded by.
type Needs struct {
	FileSystems []string // of its disks: "erofs", "ext4"
	Volumes     bool     // it has virtio-fs shares
	Network     bool     // it has network cards
	MMIO        bool     // its devices are not on PCI
	// Also are modules that are of use, where the kernel has them.
	Also []string
}

// A need is a part of a kernel that is to be there.
type need struct {
	module string
	what   string // in words
	config string // the kernel's option for it
}

// needed are the parts, in the order to load them in: the disks' are first, because they
// are waited for first.
func (n Needs) needed() []need {
	bus := need{"virtio_pci", "virtio devices on PCI", "CONFIG_VIRTIO_PCI"}
	if n.MMIO {
		bus = need{"virtio_mmio", "virtio devices without PCI", "CONFIG_VIRTIO_MMIO"}
	}
	list := []need{
		bus,
		{"virtio_blk", "virtio disks", "CONFIG_VIRTIO_BLK"},
		{"overlay", "overlayfs", "CONFIG_OVERLAY_FS"},
		{"vmw_vsock_virtio_transport", "virtio's vsock", "CONFIG_VIRTIO_VSOCKETS"},
	}
	for _, fs := range n.FileSystems {
		list = append(list, need{fs, fs, "CONFIG_" + strings.ToUpper(fs) + "_FS"})
	}
	if n.Network {
		list = append(list, need{"virtio_net", "virtio network cards", "CONFIG_VIRTIO_NET"})
	}
	if n.Volumes {
		list = append(list, need{"virtiofs", "virtio-fs", "CONFIG_VIRTIO_FS"})
	}
	return list
}

// wanted are what a guest without them can do without: the power button, and word of a
// panic.
func wanted(also []string) []string {
	return append([]string{"button", "evdev", "pvpanic_mmio"}, also...)
}

// ContainerModules are the files, in the order to load them in, that the guest of a
// container needs. kernel and dir are as Modules has them. What is built into the kernel
// has no file. A kernel that lacks something is an ErrNotFound of package modules, which
// names the kernel and all that it lacks.
//
// A kernel for which no folder of modules is found, but that has the vsock's driver built
// in, is taken for one that has all built in; the guest says what it lacks then.
func ContainerModules(kernel, dir string, n Needs) ([]modules.Module, error) {
	tree, err := modules.For(kernel, dir)
	if errors.Is(err, modules.ErrTree) && dir == "" && allBuiltIn(kernel, vsock) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("kernel %s: its modules: %w; name their folder with --modules", kernel, err)
	}
	var names, lacks []string
	for _, part := range n.needed() {
		if !tree.Has(part.module) {
			lacks = append(lacks, fmt.Sprintf("%s (%s, module %s)", part.what, part.config, part.module))
		}
		names = append(names, part.module)
	}
	if len(lacks) > 0 {
		return nil, fmt.Errorf("kernel %s lacks %s: %w; take a kernel that has it with --kernel, or name another folder of modules with --modules",
			describe(kernel), join(lacks), modules.ErrNotFound)
	}
	list, err := tree.Resolve(append(names, tree.Present(wanted(n.Also)...)...)...)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", describe(kernel), err)
	}
	return list, nil
}

// join writes a list in words.
func join(list []string) string {
	last := len(list) - 1
	if last == 0 {
		return list[0]
	}
	return strings.Join(slices.Clone(list[:last]), ", ") + " and " + list[last]
}
