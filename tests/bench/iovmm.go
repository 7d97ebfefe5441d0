package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/tests/bench/load"
)

const (
	// imageMiB is the disk's size: in memory, so that the host's side is fast and
	// the same for all.
	imageMiB = 256
	// memoryFiles is where files are in memory.
	memoryFiles = "/dev/shm"
	// guestVerb makes this program the one inside the guest.
	guestVerb = "guest"
	// guestProgram is this program, in the guest.
	guestProgram = "/bench"
)

// An ioPayload is what is booted for disk and network.
type ioPayload struct {
	Kernel, Initrd string
	Image          string // "" for no disk
	Net            bool   // a card on tapName
	Vhost          bool   // the host has vhost-net
}

// guestMain is the program inside the guest: guest KINDS TIME.
func guestMain(args []string, console io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: bench %s disk,net 2s", guestVerb)
	}
	var kinds []load.Kind
	for _, k := range strings.Split(args[0], ",") {
		kinds = append(kinds, load.Kind(k))
	}
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	if slices.Contains(kinds, load.Net) {
		if err := load.SetUp(load.GuestInterface, load.GuestNet); err != nil {
			fmt.Fprintln(console, load.Line(load.Failed, err.Error()))
			return nil
		}
	}
	load.Guest(console, load.Loads(kinds...), limit)
	return nil
}

// prepareIO lays out what is booted.
func (o *options) prepareIO(dir, kernel string) (p ioPayload, clean func(), err error) {
	p = ioPayload{Kernel: kernel, Initrd: filepath.Join(dir, "io-initrd"), Net: o.measures(whatNet)}
	if _, err := os.Stat("/dev/vhost-net"); err == nil {
		p.Vhost = true
	}
	initrd, err := o.ioInitramfs()
	if err != nil {
		return p, nil, err
	}
	if err := os.WriteFile(p.Initrd, initrd, 0o600); err != nil {
		return p, nil, err
	}
	if !o.measures(whatDisk) {
		return p, func() {}, nil
	}
	p.Image, err = makeImage()
	return p, func() { _ = os.Remove(p.Image) }, err
}

// ioInitramfs has this program in it, which is why it must be a static one.
func (o *options) ioInitramfs() ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := checkStatic(self); err != nil {
		return nil, err
	}
	tree, err := modules.For(o.kernel, "")
	if err != nil {
		return nil, err
	}
	list, err := tree.Resolve("virtio_pci", "virtio_blk", "virtio_net")
	if err != nil {
		return nil, err
	}
	kinds := strings.Join(slices.DeleteFunc(slices.Clone(o.what), func(w string) bool { return w == whatBoot }), ",")
	var b bytes.Buffer
	err = guestinit.Initramfs(&b, guestinit.Options{
		Init: spec.Init{Demo: spec.Demo{
			Do: spec.Run, Quiet: true,
			Run: strings.Join([]string{guestProgram, guestVerb, kinds, o.loadTime.String()}, " "),
		}},
		Modules: list,
		Extra:   map[string]string{guestProgram: self},
	})
	return b.Bytes(), err
}

func checkStatic(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not a static program, which a guest could run; build it with CGO_ENABLED=0", program)
		}
	}
	return nil
}

// makeImage makes a disk without holes, in memory where the host has that.
func makeImage() (name string, err error) {
	dir := memoryFiles
	if _, err := os.Stat(dir); err != nil {
		dir = ""
	}
	f, err := os.CreateTemp(dir, "husk-bench-*.img")
	if err != nil {
		return "", err
	}
	block := bytes.Repeat([]byte("husk"), 1<<18)
	for range imageMiB {
		if _, err = f.Write(block); err != nil {
			break
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// ioMonitors are those that have a disk and a network card on PCI that an
// unmodified kernel drives, as good as they have them. All use the page cache
// of the host.
func ioMonitors(programs map[string]string, p ioPayload) []monitor {
	mem := strconv.Itoa(memoryMiB)
	qemu := func(aio string, vhost string) []string {
		args := []string{
			"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
			"-M", tunedMicrovm + ",pcie=on", "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", mem + "M",
			"-kernel", p.Kernel, "-initrd", p.Initrd, "-append", commandLine,
		}
		if p.Image != "" {
			args = append(args, "-drive", "if=none,id=d,format=raw,cache=writeback,aio="+aio+",file="+p.Image, "-device", "virtio-blk-pci,drive=d")
		}
		if p.Net {
			args = append(args, "-netdev", "tap,id=n,ifname="+tapName+",script=no,downscript=no,vhost="+vhost, "-device", "virtio-net-pci,netdev=n")
		}
		return args
	}
	husk := []string{
		"boot", "--accel=kvm", "-k", p.Kernel, "-i", p.Initrd, "--cmdline", commandLine,
		"-m", mem + "M", "-c", "1", "--serial", "stdio",
	}
	lkvm := []string{
		"run", "--nodefaults", "--console", "serial", "-c", "1", "-m", mem,
		"-k", p.Kernel, "-i", p.Initrd, "-p", commandLine + " pci=conf1", // it has no host bridge for Linux to find
	}
	if p.Image != "" {
		husk = append(husk, "-d", p.Image+",format=raw,cache=writeback")
		lkvm = append(lkvm, "-d", p.Image)
	}
	if p.Net {
		husk = append(husk, "-n", "tap="+tapName)
		lkvm = append(lkvm, "-n", "mode=tap,tapif="+tapName)
	}
	all := []struct {
		name, program string
		args          []string
		not           bool
	}{
		{nameHusk, "husk", husk, false},
		{"kvmtool", "lkvm", lkvm, false},
		{"QEMU threads, no vhost", "qemu", qemu("threads", "off"), false},
		{"QEMU io_uring, vhost", "qemu", qemu("io_uring", "on"), p.Net && !p.Vhost},
	}
	var found []monitor
	for _, m := range all {
		if program := programs[m.program]; program != "" && !m.not {
			found = append(found, monitor{
				Name: m.name, Program: program, Version: programVersion(m.program, program),
				Argv: append([]string{program}, m.args...),
			})
		}
	}
	return found
}
