// Package testvm runs a guest for a test: what it says on its console is kept and
// can be waited for, commands run in it and files go in and out, and however it
// ends, whoever waits for it learns of it at once.
package testvm

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/ondisk"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/vmm"
)

// A Blueprint says what to boot, and what of husk's is in the guest.
type Blueprint struct {
	// Kernel and Initrds are files; those of Machine come before them.
	Kernel  string
	Initrds []string
	// Modules says where the kernel's modules are, "" to look: a folder as
	// /lib/modules/VERSION, or one with that in it.
	Modules string
	// Load are modules that are loaded at the start, besides those that husk needs.
	Load []string
	// Own are more initramfs archives. Unlike Initrds they bring no first process.
	Own []Archive
	// Program is husk-init, nil for the one that is built in.
	Program []byte
	// NoAgent leaves husk's own process out of the guest: there are no commands then.
	NoAgent bool
	// AllowPanic lets a kernel that has panicked go on, as with a crash kernel, instead
	// of ending the machine once its trace is out.
	AllowPanic bool
	// Machine is all the rest. Its serial port and its vsock are set by Start.
	Machine vmm.Config
}

// An Archive writes an initramfs.
type Archive struct {
	Name  string // for messages
	Write func(w io.Writer) error
}

// initPath is what husk-init is called where another /init comes after it.
const initPath = "/husk-init"

// The modules of a guest of ours: what tells of the power button and of panics, and
// the devices that the machine may have. Those that a kernel has not are left out.
var (
	ours   = []string{"virtio_pci", "virtio_mmio", "button", "evdev", "pvpanic_mmio"}
	theirs = []string{"virtio_pci", "virtio_mmio"} // a user's initramfs has the rest
)

// vsockDriver is what the agent's connection needs in the guest.
const vsockDriver = "vmw_vsock_virtio_transport"

// config is the machine that b asks for. files must be closed once it is made, or
// after an error.
func (b Blueprint) config() (cfg vmm.Config, files closers, err error) {
	cfg = b.Machine
	defer func() {
		if err != nil {
			files.close()
		}
	}()
	open := func(path string) (boot.Source, error) {
		source, closer, err := vmm.OpenSource(path)
		if err == nil {
			files = append(files, closer)
		}
		return source, err
	}
	if b.Kernel != "" {
		if cfg.Kernel, err = open(b.Kernel); err != nil {
			return cfg, files, fmt.Errorf("kernel: %w", err)
		}
	}
	initrds := slices.Clone(cfg.Initrds)
	for _, path := range b.Initrds {
		initrd, err := open(path)
		if err != nil {
			return cfg, files, fmt.Errorf("initrd: %w", err)
		}
		initrds = append(initrds, initrd)
	}
	alone := len(initrds) == 0 && cfg.Kernel.ReaderAt != nil
	if cfg.CommandLine == "" && cfg.Kernel.ReaderAt != nil {
		cfg.CommandLine = vmm.DefaultCommandLine
	}
	archives := slices.Clone(b.Own)
	if !b.NoAgent {
		init, image, err := b.init(alone, cfg.Kernel.Name)
		if err != nil {
			return cfg, files, err
		}
		defer image.Close()
		archives = append(archives, init)
		cfg.Vsock = &vmm.Vsock{CID: guestCID}
		if !alone {
			cfg.Append = strings.TrimSpace(cfg.Append + " rdinit=" + initPath)
		}
	}
	cfg.Initrds = initrds
	cfg.AppendInitrds = slices.Clone(cfg.AppendInitrds)
	for _, a := range archives {
		source, closer, err := inMemory(a)
		if err != nil {
			return cfg, files, err
		}
		files, cfg.AppendInitrds = append(files, closer), append(cfg.AppendInitrds, source)
	}
	return cfg, files, nil
}

// guestCID is the guest's address: each machine has a vsock of its own, so that all
// can have the same.
const guestCID = 3

// init is husk's part of the initramfs: the only one, or the one behind others. It is to
// be written before the closer is closed.
func (b Blueprint) init(alone bool, kernel string) (Archive, io.Closer, error) {
	o := guestinit.Options{Program: b.Program, Init: spec.Init{Guest: &spec.Guest{Port: spec.GuestPort}, Demo: spec.Demo{Quiet: true}}}
	want := ours
	if !alone {
		o.Path, want = initPath, theirs
		o.Init.Guest.Then = cmp.Or(boot.Word(boot.AddWords(b.Machine.CommandLine, b.Machine.Append), "rdinit"), "/init")
	}
	a := Archive{"husk's own initramfs", func(w io.Writer) error { return guestinit.Initramfs(w, o) }}
	var err error
	if kernel != "" {
		need := append([]string{vsockDriver}, b.Load...)
		o.Modules, err = guestinit.Choose(kernel, b.Modules, need, want)
		return a, io.NopCloser(nil), err
	}
	if len(b.Machine.Disks) == 0 {
		return a, nil, errors.New("no kernel given, nor a disk to look for one")
	}
	image, err := vmm.LookAtDisk(b.Machine.Disks[0], b.Machine.Log)
	if err != nil {
		return a, nil, err
	}
	o.Modules, err = ondisk.Modules(image, b.Modules, b.Load...)
	if err == nil && len(image.Initrds)+len(b.Initrds)+len(b.Machine.Initrds) == 0 {
		err = fmt.Errorf("%s: its kernel has no initrd, and husk-init would have nothing to start behind itself; give one, or do without commands (NoAgent)", b.Machine.Disks[0].File)
	}
	if err != nil {
		return a, nil, errors.Join(err, image.Close())
	}
	return a, image, nil
}

// inMemory makes an archive's file, which has no place in any file system.
func inMemory(a Archive) (boot.Source, io.Closer, error) {
	fd, err := unix.MemfdCreate(a.Name, unix.MFD_CLOEXEC)
	if err != nil {
		return boot.Source{}, nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), a.Name)
	err = a.Write(f)
	var info fs.FileInfo
	if err == nil {
		info, err = f.Stat()
	}
	if err != nil {
		_ = f.Close()
		return boot.Source{}, nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	return boot.Source{Name: a.Name, Size: info.Size(), ReaderAt: f}, f, nil
}

// closers are what is closed together.
type closers []io.Closer

func (c closers) close() {
	for _, f := range c {
		_ = f.Close()
	}
}
