package vmm

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/devices/netdev/tap"
	"github.com/huskvm/husk/devices/netdev/user"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/balloon"
	"github.com/huskvm/husk/devices/virtio/blk"
	"github.com/huskvm/husk/devices/virtio/console"
	"github.com/huskvm/husk/devices/virtio/net"
	"github.com/huskvm/husk/devices/virtio/rng"
	"github.com/huskvm/husk/devices/virtio/vhost"
	"github.com/huskvm/husk/devices/virtio/vsock"
)

// A Network is a network card and what it is plugged into.
type Network struct {
	netdev.Options
	// Publish makes ports of the guest reachable from the host. Of a user
	// network only.
	Publish []netdev.Publish
}

// Vsock is a socket device between the guest and programs of this host.
type Vsock struct {
	// CID is the guest's address, at least 3.
	CID uint32
	// Path is a Unix socket, which is made: a program that connects and writes
	// "CONNECT port\n" reaches that port in the guest. A guest that connects to port
	// P of the host reaches the socket Path_P. Firecracker does the same. Where it
	// is empty, only VM.DialVsock and VM.ListenVsock are there.
	Path string
}

// A part is a virtio device as a Config asks for it.
type part struct {
	name string
	make func(vm *VM) (virtio.Device, error)
}

// parts are the virtio devices of c, in the order of their slots.
func (c Config) parts() []part {
	var parts []part
	for i, d := range c.Disks {
		parts = append(parts, part{"virtio-blk " + d.File, func(vm *VM) (virtio.Device, error) {
			d, err := newBlock(vm.disks[i], vm.cfg.CPUs)
			if err == nil {
				vm.io.disks = append(vm.io.disks, d)
			}
			return d, err
		}})
	}
	for i, n := range c.Networks {
		parts = append(parts, part{"virtio-net " + n.name(), func(vm *VM) (virtio.Device, error) {
			kernel, err := vm.openVhost(n)
			if err != nil {
				return nil, err
			}
			d, err := net.New(vm.links[i], vm.cfg.mac(i), kernel)
			if err == nil {
				vm.io.addCard(d, vm.links[i], kernel != nil)
			}
			return d, err
		}})
	}
	for i, s := range c.Shares {
		parts = append(parts, part{s.name(), func(vm *VM) (virtio.Device, error) {
			return newShare(vm.shares[i], s.Tag, vm.cfg.CPUs)
		}})
	}
	if c.Console != nil {
		parts = append(parts, part{"virtio-console", func(vm *VM) (virtio.Device, error) {
			vm.hvc = console.New(console.Config{Out: vm.hvcWatch, Log: vm.log})
			return vm.hvc, nil
		}})
	}
	if v := c.Vsock; v != nil {
		parts = append(parts, part{fmt.Sprintf("virtio-vsock cid %d", v.CID), func(vm *VM) (virtio.Device, error) {
			d, err := vsock.New(vsock.Config{CID: v.CID, Path: v.Path, Log: vm.log})
			if err == nil {
				vm.onClose(d.Close)
				vm.vsock = d
			}
			return d, err
		}})
	}
	if c.Entropy {
		parts = append(parts, part{"virtio-rng", func(*VM) (virtio.Device, error) { return rng.New(nil), nil }})
	}
	if c.Balloon {
		parts = append(parts, part{"virtio-balloon", func(vm *VM) (virtio.Device, error) {
			vm.balloon = balloon.New(vm.mem)
			return vm.balloon, nil
		}})
	}
	return parts
}

// maxBlockQueues bounds a disk's queues: each takes a goroutine and a vector,
// and one file does not go faster by more.
const maxBlockQueues = 4

func newBlock(d *disk.Disk, cpus int) (*blk.Device, error) {
	t, spec := d.Topology(), d.Spec()
	return blk.New(blk.Config{
		Disk: d, Size: d.Size(), BlockSize: t.Logical, PhysicalSize: t.Physical, ReadOnly: d.ReadOnly(),
		Discard: spec.Discard, Serial: spec.Serial, Depth: spec.IODepth, Queues: min(cpus, maxBlockQueues),
	})
}

func (n Network) name() string {
	if n.Kind == netdev.KindTap {
		return "tap " + n.Name
	}
	return string(n.Kind)
}

// mac is the address of the i-th network card.
func (c Config) mac(i int) []byte {
	if m := c.Networks[i].MAC; m != nil {
		return m
	}
	return netdev.StableMAC(c.Name, i)
}

func (vm *VM) openDisks() error {
	for _, spec := range vm.cfg.Disks {
		d, err := disk.Open(spec, vm.log)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
		vm.onClose(d.Close)
		vm.disks = append(vm.disks, d)
	}
	return nil
}

func (vm *VM) openNetworks() error {
	for i, n := range vm.cfg.Networks {
		var link netdev.Link
		var err error
		if n.Kind == netdev.KindTap {
			link, err = tap.Open(n.Name, n.Queues, n.MTU)
		} else {
			var u *user.Link
			if u, err = user.New(user.Config{
				Net: n.Net, MTU: n.MTU, HostName: vm.cfg.Name, HostLoopback: n.HostLoopback,
				Publish: n.Publish, Log: vm.log,
			}); err == nil {
				link = u
				vm.published = append(vm.published, u.Published()...)
			}
		}
		if err != nil {
			return fmt.Errorf("%w: network %d: %w", ErrConfig, i+1, err)
		}
		vm.onClose(link.Close)
		vm.links = append(vm.links, link)
	}
	return nil
}

// vhostPath is the device of the host's kernel that serves queues. Tests change it.
var vhostPath = vhost.Path

// openVhost has the host's kernel serve the queues of a card, if it can and shall.
func (vm *VM) openVhost(n Network) (net.Kernel, error) {
	if n.Kind != netdev.KindTap || n.Vhost == netdev.VhostOff {
		return nil, nil
	}
	var ram []vhost.Region
	for _, r := range vm.mem.Regions() {
		ram = append(ram, vhost.Region{GPA: r.GPA, Size: r.Size, HVA: r.HVA()})
	}
	v, err := vhost.Open(vhostPath, n.Queues, ram)
	if err != nil {
		if n.Vhost == netdev.VhostOn {
			return nil, fmt.Errorf("vhost=on: %w; or leave vhost out", err)
		}
		vm.log.Info("husk serves the network's queues", "network", n.name(), "because", err)
		return nil, nil
	}
	vm.onClose(v.Close)
	vm.queues -= n.Queues // to receive: no thread of ours waits there
	vm.log.Info("the host's kernel serves the network's queues (vhost-net)", "network", n.name())
	return v, nil
}

// validateNetworks refuses what no network can be.
func (c Config) validateNetworks() error {
	for i, n := range c.Networks {
		switch {
		case n.Kind != netdev.KindUser && n.Kind != netdev.KindTap:
			return fmt.Errorf("%w: network %d is of kind %q; use user or tap", ErrConfig, i+1, n.Kind)
		case i > 0 && slices.ContainsFunc(c.Networks[:i], func(o Network) bool { return n.MAC != nil && bytes.Equal(o.MAC, n.MAC) }):
			return fmt.Errorf("%w: network %d has the address of another, %s; leave one out", ErrConfig, i+1, n.MAC)
		case n.Vhost != "" && n.Vhost != netdev.VhostAuto && n.Vhost != netdev.VhostOn && n.Vhost != netdev.VhostOff:
			return fmt.Errorf("%w: network %d: vhost %q; use on, off or auto", ErrConfig, i+1, n.Vhost)
		case n.Kind == netdev.KindUser && n.Vhost == netdev.VhostOn:
			return fmt.Errorf("%w: network %d: vhost is for taps; a user network is in this process", ErrConfig, i+1)
		case n.Kind == netdev.KindTap && len(n.Publish) > 0:
			return fmt.Errorf("%w: network %d: ports are published by a user network; a tap has addresses of its own", ErrConfig, i+1)
		}
	}
	return nil
}
