package main

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/tests/bench/load"
)

// tapName is the host's end of the guest's network.
const tapName = "bench0"

// privateNetwork moves the calling thread, and what it starts from now on, into
// a network of its own with nothing but a tap in it, and listens there. The
// thread must not be used for anything else afterwards.
func privateNetwork() (net.Listener, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("a network of its own: %w; be root", err)
	}
	if err := makeTap(tapName); err != nil {
		return nil, err
	}
	if err := load.SetUp(tapName, load.HostNet); err != nil {
		return nil, err
	}
	return net.Listen("tcp4", load.Server)
}

// makeTap makes a tap that stays until its network goes, with headers that every
// monitor can use.
func makeTap(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w; load the tun module", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("tap %s: %w", name, err)
	}
	return nil
}
