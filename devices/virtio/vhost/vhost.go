// Package vhost has the host's kernel serve the queues of a network card (Linux
// drivers/vhost/net.c): frames go between the rings in guest memory and a tap
// without this process.
//
// A ring is the kernel's while Serve runs, and back with its Queue when that
// returns. So resets, pauses and the end of a machine are what they are for any
// device. What the kernel writes to guest memory nobody takes note of
// (queue.Memory.Writable does not hear of it).
package vhost

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/virtio"
)

// Path is where the kernel's device is.
const Path = "/dev/vhost-net"

// ErrVhost is why the kernel cannot serve queues. The error says what to do.
var ErrVhost = errors.New("vhost-net cannot be used")

// A Region is a piece of the guest's RAM: its guest-physical address and its size in
// bytes, and where it is in this process.
type Region struct {
	GPA, Size uint64
	HVA       uintptr
}

// maxRegions is what fits into a memoryTable.
const maxRegions = 64

// featMrgRxbuf is VIRTIO_NET_F_MRG_RXBUF (virtio 1.2 §5.1.3).
const featMrgRxbuf = 1 << 15

// features are what the kernel has to know of what was negotiated. It must not be
// told of others: they have other meanings there (bit 27 is
// VHOST_NET_F_VIRTIO_NET_HDR, a header that a tap need not give).
const features = virtio.FeatVersion1 | virtio.FeatIndirectDesc | virtio.FeatEventIdx | featMrgRxbuf

// kernel is one descriptor, which serves a pair of queues: ring 0 is what it sends
// from, receiveq to the driver, ring 1 the other. The methods are its requests.
type kernel interface {
	SetFeatures(features uint64) error
	// SetNumber is for reqSetSize and reqSetNext.
	SetNumber(request uintptr, ring int, n uint32) error
	Next(ring int) (uint16, error)
	SetAreas(ring int, desc, avail, used []byte) error
	// SetFile is for reqSetKick, reqSetCall, reqSetError and reqSetBackend. -1 takes
	// the file away.
	SetFile(request uintptr, ring, fd int) error
	Close() error
}

// A Net serves the queues of one card.
type Net struct {
	pairs []kernel
}

// Open gets hold of the kernel's device at path, for so many pairs of queues of a
// guest with that RAM, which stays where it is until Close. Errors wrap ErrVhost.
func Open(path string, pairs int, ram []Region) (*Net, error) {
	if len(ram) > maxRegions {
		return nil, fmt.Errorf("%w: %d pieces of RAM; it takes %d", ErrVhost, len(ram), maxRegions)
	}
	n := &Net{}
	for range pairs {
		d, err := open(path, ram)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrVhost, path, err), n.Close())
		}
		n.pairs = append(n.pairs, d)
	}
	return n, nil
}

func open(path string, ram []Region) (_ descriptor, err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return 0, fmt.Errorf("%w; load the module: modprobe vhost_net", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return 0, fmt.Errorf("%w; take the permission to open it, as by the group that it belongs to", err)
	case err != nil:
		return 0, err
	}
	d := descriptor(fd)
	defer func() {
		if err != nil {
			_ = d.Close() // nothing was written
		}
	}()
	has, err := d.features()
	if err != nil {
		return 0, fmt.Errorf("VHOST_GET_FEATURES: %w; it is no vhost-net", err)
	}
	if lacks := features &^ has; lacks != 0 {
		return 0, fmt.Errorf("it lacks the features %#x; a newer kernel on the host has them", lacks)
	}
	if err := d.own(); err != nil {
		return 0, fmt.Errorf("VHOST_SET_OWNER: %w", err)
	}
	if err := d.setMemory(ram); err != nil {
		return 0, fmt.Errorf("VHOST_SET_MEM_TABLE: %w", err)
	}
	return d, nil
}

// Close gives the device back. The kernel's threads are gone when it returns. No
// Serve may be under way.
func (n *Net) Close() error {
	var errs []error
	for _, k := range n.pairs {
		errs = append(errs, k.Close())
	}
	n.pairs = nil
	return errors.Join(errs...)
}
