package process

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/rootfs"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/vmm"
)

// The serial numbers of the disks, by which the guest knows them.
const (
	rootSerial  = "husk-root"
	upperSerial = "husk-upper"
)

// commandLine is the kernel's: errors and panics on the serial port, which husk watches, and
// nothing else, as each character takes time; a panic ends the machine.
const commandLine = "console=ttyS0 quiet panic=-1"

// guestCID is the guest's vsock address: each machine has a vsock of its own.
const guestCID = 3

// NewVM makes a machine's virtual machine, which has its kernel's console on console, and
// whose log goes to log.
func NewVM(m *machine.Machine, console io.Writer, log *slog.Logger) (VM, error) {
	s := m.Spec()
	cfg := config(s, m.UpperFile())
	cfg.Serial, cfg.Log = &vmm.Serial{Out: console}, log
	kernel, closer, err := vmm.OpenSource(s.Kernel)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	defer closer.Close()
	cfg.Kernel = kernel
	initrd, err := initramfs(s)
	if err != nil {
		return nil, err
	}
	defer initrd.Close()
	info, err := initrd.Stat()
	if err != nil {
		return nil, err
	}
	cfg.Initrds = []boot.Source{{Name: initrd.Name(), Size: info.Size(), ReaderAt: initrd}}
	if s.RWSize > 0 {
		if err := makeUpper(m.UpperFile(), s.RWSize); err != nil {
			return nil, err
		}
	}
	vm, err := vmm.New(cfg)
	if err != nil {
		return nil, err
	}
	return vm, nil
}

// config is the machine but for what is opened for it.
func config(s machine.Spec, upper string) vmm.Config {
	cfg := vmm.Config{
		Name: s.Name, Memory: s.Memory, CPUs: s.CPUs, KVM: s.KVM,
		CommandLine: boot.AddWords(commandLine, s.Append),
		Networks:    s.Networks, Vsock: &vmm.Vsock{CID: guestCID}, Balloon: true, Entropy: true,
		Disks: []disk.Spec{{File: s.Root.File, Format: disk.Raw, ReadOnly: true, Serial: rootSerial, Unlocked: true}},
	}
	if s.RWSize > 0 {
		// What the guest's writes go to ends with the machine: nothing of it need reach the disk.
		cfg.Disks = append(cfg.Disks, disk.Spec{File: upper, Format: disk.Raw, Cache: disk.Unsafe, Discard: true, Serial: upperSerial})
	}
	cfg.Disks = append(cfg.Disks, s.Disks...)
	for i, v := range s.Volumes {
		cfg.Shares = append(cfg.Shares, vmm.Share{Tag: shareTag(i), Path: v.Host, ReadOnly: v.ReadOnly})
	}
	return cfg
}

func shareTag(i int) string { return fmt.Sprintf("husk-volume-%d", i) }

// makeUpper makes the disk that takes what the guest writes.
func makeUpper(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = rootfs.WriteEmpty(f, size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// initramfs writes the guest's, to a file without a name.
func initramfs(s machine.Spec) (*os.File, error) {
	container, err := container(s)
	if err != nil {
		return nil, err
	}
	needs := guestinit.Needs{FileSystems: []string{s.Root.FileSystem}, Volumes: len(s.Volumes) > 0, Network: len(s.Networks) > 0}
	if s.RWSize > 0 {
		needs.FileSystems = append(needs.FileSystems, rootfs.EmptyFileSystem)
	}
	modules, err := guestinit.ContainerModules(s.Kernel, s.Modules, needs)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "husk's initramfs")
	err = guestinit.Initramfs(f, guestinit.Options{
		Init:    spec.Init{Guest: &spec.Guest{Port: spec.GuestPort}, Container: &container, Demo: spec.Demo{Quiet: true}},
		Modules: modules,
	})
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// container is what the guest is told of itself.
func container(s machine.Spec) (spec.Container, error) {
	c := spec.Container{
		Root: spec.Disk{Serial: rootSerial, FileSystem: s.Root.FileSystem}, ReadOnly: s.ReadOnly,
		Hostname: s.Hostname, Domainname: s.Domainname, Hosts: s.Hosts,
		DNS: s.DNS, Search: s.Search, DNSOptions: s.DNSOptions, Dir: s.Process.Dir,
		ShmSize: s.ShmSize, Sysctls: s.Sysctls,
	}
	if s.RWSize > 0 {
		c.Upper = &spec.Disk{Serial: upperSerial, FileSystem: rootfs.EmptyFileSystem}
	}
	for _, t := range s.Tmpfs {
		c.Mounts = append(c.Mounts, spec.Mount{Target: t.Guest, Options: t.Options})
	}
	for i, v := range s.Volumes {
		mount := spec.Mount{Target: v.Guest, Tag: shareTag(i), ReadOnly: v.ReadOnly}
		info, err := os.Stat(v.Host)
		if err != nil {
			return c, fmt.Errorf("volume %s: %w", v.Host, err)
		}
		if !info.IsDir() {
			mount.File = filepath.Base(v.Host)
		}
		c.Mounts = append(c.Mounts, mount)
	}
	// What is below another is mounted after it.
	slices.SortStableFunc(c.Mounts, func(a, b spec.Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	for _, n := range s.Networks {
		i := spec.Interface{DHCP: true, MTU: n.MTU}
		if n.Kind == netdev.KindUser { // what it would say by DHCP is known
			at := addressesOf(n)
			i = spec.Interface{Address: netip.PrefixFrom(at.guest, at.bits).String(), Gateway: at.gateway.String(), MTU: n.MTU}
			if len(c.DNS) == 0 {
				c.DNS = []string{at.dns.String()}
			}
		}
		c.Interfaces = append(c.Interfaces, i)
	}
	return c, nil
}

// addresses are those of a user network, as devices/netdev/user has them.
type addresses struct {
	gateway, dns, guest netip.Addr
	bits                int
}

func addressesOf(n vmm.Network) addresses {
	p := n.Net
	if !p.IsValid() {
		p = netdev.DefaultNet
	}
	at := func(n byte) netip.Addr {
		a := p.Masked().Addr().As4()
		a[3] += n
		return netip.AddrFrom4(a)
	}
	return addresses{gateway: at(2), dns: at(3), guest: at(15), bits: p.Bits()}
}

// address is where the first network has the guest, where that is known here.
func address(networks []vmm.Network) string {
	if len(networks) == 0 || networks[0].Kind != netdev.KindUser {
		return ""
	}
	return addressesOf(networks[0]).guest.String()
}
