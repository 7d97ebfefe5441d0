package lab

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/payload"
	"github.com/huskvm/husk/internal/guestinit"
)

// files are what the machine boots from.
type files struct{ kernel, initrd *os.File }

func (f files) close() {
	for _, file := range []*os.File{f.kernel, f.initrd} {
		if file != nil {
			_ = file.Close()
		}
	}
}

// files makes them in memory: nothing is left behind however husk ends.
func (o Options) files() (f files, err error) {
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.kernel, err = openKernel(o.Kernel); err != nil {
		return f, err
	}
	if f.initrd, err = inMemory("initrd"); err != nil {
		return f, err
	}
	return f, o.writeInitrd(f.initrd)
}

// openKernel opens a kernel, unpacked where QEMU can boot that, by its PVH
// entry: a kernel that unpacks itself takes half the lab's boot for it.
func openKernel(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: kernel: %w", ErrMissing, err)
	}
	bzImage, err := io.ReadAll(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("kernel: %w", err)
	}
	elf, err := payload.Unpack(bzImage)
	if err == nil && hasPVH(elf) {
		_ = f.Close()
		return unpackedKernel(elf)
	}
	return f, nil // as it is, then
}

func unpackedKernel(elf []byte) (*os.File, error) {
	f, err := inMemory("vmlinux")
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(elf); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("kernel: %w", err)
	}
	return f, nil
}

func hasPVH(elf []byte) bool {
	image, err := boot.Open(boot.Source{Name: "vmlinux", Size: int64(len(elf)), ReaderAt: bytes.NewReader(elf)})
	return err == nil && strings.Contains(image.Format(), "PVH")
}

// writeInitrd writes the initramfs with the kernel's modules.
func (o Options) writeInitrd(w io.Writer) error {
	list, err := guestinit.Choose(o.Kernel, "", needed(), wanted())
	if err != nil {
		return err
	}
	return guestinit.Initramfs(w, guestinit.Options{Init: o.init(), Modules: list})
}

// inMemory makes a file that has no place in any file system.
func inMemory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
