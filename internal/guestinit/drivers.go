package guestinit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/boot/payload"
)

// Modules are the files, in the order to load them in, that a guest needs to run
// commands over vsock: its driver, those of the buses it may be on, and the named
// modules. kernel is the file of a bzImage or vmlinux; dir says where its modules are,
// as modules.For has it, "" to look. What is built into the kernel has no file.
//
// Errors name the kernel, what is missing and what to do.
func Modules(kernel, dir string, names ...string) ([]modules.Module, error) {
	need := append([]string{"vmw_vsock_virtio_transport"}, names...)
	return Choose(kernel, dir, need, []string{"virtio_pci", "virtio_mmio"})
}

// Choose is Modules for any guest: the modules that it needs, and of those that it
// wants the ones that the kernel has.
func Choose(kernel, dir string, need, want []string) ([]modules.Module, error) {
	tree, err := modules.For(kernel, dir)
	if errors.Is(err, modules.ErrTree) && dir == "" && allBuiltIn(kernel, need) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("kernel %s: its modules (%s): %w; name their folder with --modules", kernel, strings.Join(need, ", "), err)
	}
	list, err := ModulesOf(tree, need, want)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", describe(kernel), err)
	}
	return list, nil
}

// ModulesOf is Choose for a kernel whose tree of modules is given, such as that of a
// disk image (vmm.LookAtDisk).
func ModulesOf(tree *modules.Tree, need, want []string) ([]modules.Module, error) {
	list, err := tree.Resolve(append(need[:len(need):len(need)], tree.Present(want...)...)...)
	if err != nil {
		return nil, fmt.Errorf("%w; name another folder with --modules, or take a kernel that has it", err)
	}
	return list, nil
}

// describe is a kernel's file with its version, if that is to be found.
func describe(kernel string) string {
	f, err := os.Open(kernel)
	if err != nil {
		return kernel
	}
	defer f.Close()
	version, err := modules.Version(f)
	if err != nil {
		return kernel
	}
	return kernel + " (" + version + ")"
}

// allBuiltIn tells of a kernel without a tree of modules whether the named ones are
// in it: a developer's own often has no modules at all. A driver's name is a
// string of its own then, usually that of the module (KBUILD_MODNAME).
func allBuiltIn(kernel string, names []string) bool {
	image, err := os.ReadFile(kernel)
	if err != nil {
		return false
	}
	if elf, err := payload.Unpack(image); err == nil {
		image = elf
	}
	for _, name := range names {
		with := func(separator string) []byte {
			return []byte("\x00" + strings.ReplaceAll(name, "_", separator) + "\x00")
		}
		if !bytes.Contains(image, with("_")) && !bytes.Contains(image, with("-")) {
			return false
		}
	}
	return true
}
