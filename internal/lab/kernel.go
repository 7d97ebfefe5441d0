package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/huskvm/husk/boot/modules"
)

// kernelVariable names the lab's kernel in the environment.
const kernelVariable = "HUSK_LAB_KERNEL"

// needed are the modules that a lab cannot do without.
func needed() []string {
	return []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "kvm_amd"}
}

// wanted are those that commands find useful where the kernel has them.
func wanted() []string {
	return []string{"virtio_rng", "tun", "vhost_net", "vhost_vsock", "loop"}
}

// findQEMU finds the program.
func findQEMU(name string) (string, error) {
	if name == "" {
		name = "qemu-system-x86_64"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: %s is not there: install QEMU (Debian and Ubuntu: apt-get install qemu-system-x86; Fedora: dnf install qemu-system-x86-core)", ErrMissing, name)
	}
	return path, nil
}

// findKernel finds a kernel that has, with its modules, what a lab needs: the
// one asked for, else the newest generic one under build/kernels or /boot.
func findKernel(name string) (string, error) {
	if name == "" {
		name = os.Getenv(kernelVariable)
	}
	if name != "" {
		return name, suits(name)
	}
	var reasons []string
	for _, candidate := range candidates() {
		err := suits(candidate)
		if err == nil {
			return candidate, nil
		}
		reasons = append(reasons, err.Error())
	}
	found := "none was found"
	if len(reasons) > 0 {
		found = "those found will not do: " + strings.Join(reasons, "; ")
	}
	return "", fmt.Errorf("%w: a kernel with 9p and kvm_amd modules, %s: fetch one with tests/fetch-kernels generic, or install linux-image-amd64 (Debian), linux-image-generic (Ubuntu), kernel-core and kernel-modules (Fedora), or name one with $%s",
		ErrMissing, found, kernelVariable)
}

// candidates are kernels in the order in which they are tried.
func candidates() []string {
	var list []string
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			kernel := filepath.Join(dir, "build/kernels/generic/vmlinuz")
			if _, err := os.Stat(kernel); err == nil {
				list = append(list, kernel)
			}
			if dir == "/" {
				break
			}
		}
	}
	installed, _ := filepath.Glob("/boot/vmlinuz-*")
	fedora, _ := filepath.Glob("/lib/modules/*/vmlinuz")
	for _, kernels := range [][]string{installed, fedora} {
		slices.Sort(kernels)
		slices.Reverse(kernels) // newest first, nearly enough
		list = append(list, kernels...)
	}
	return list
}

// suits says why a kernel will not do.
func suits(kernel string) error {
	tree, err := modules.For(kernel, "")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if _, err := tree.Resolve(needed()...); err != nil {
		return fmt.Errorf("%w: kernel %s: %w", ErrMissing, kernel, err)
	}
	return nil
}
