package vmm

import (
	"context"
	"errors"
	"net"
	"slices"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/devices/virtio/balloon"
)

var (
	errNoVsock   = errors.New("the machine has no vsock")
	errNoBalloon = errors.New("the machine has no balloon")
)

// DialVsock connects to a port of the guest's vsock. Before the guest's driver is
// there it fails at once.
func (vm *VM) DialVsock(ctx context.Context, port uint32) (net.Conn, error) {
	if vm.vsock == nil {
		return nil, errNoVsock
	}
	return vm.vsock.Dial(ctx, port)
}

// ListenVsock takes what the guest connects to at a port of the host's vsock.
func (vm *VM) ListenVsock(port uint32) (net.Listener, error) {
	if vm.vsock == nil {
		return nil, errNoVsock
	}
	return vm.vsock.Listen(port)
}

// Resize tells the guest the size of the window that Console is shown in, in
// characters. Without a Console it does nothing.
func (vm *VM) Resize(columns, rows int) {
	if vm.hvc != nil {
		vm.hvc.Resize(uint16(columns), uint16(rows))
	}
}

// Published are the ports that user networks have published, with the host's ports
// that were chosen.
func (vm *VM) Published() []netdev.Publish { return slices.Clone(vm.published) }

// SetBalloon asks the guest to give up bytes of its memory, or to take them back.
func (vm *VM) SetBalloon(bytes uint64) error {
	if vm.balloon == nil {
		return errNoBalloon
	}
	return vm.balloon.SetTarget(bytes)
}

// BalloonStats asks the guest how its memory is used.
func (vm *VM) BalloonStats(ctx context.Context) (balloon.Stats, error) {
	if vm.balloon == nil {
		return balloon.Stats{}, errNoBalloon
	}
	return vm.balloon.Stats(ctx)
}

// Balloon is how many bytes of its memory the guest has given up.
func (vm *VM) Balloon() uint64 {
	if vm.balloon == nil {
		return 0
	}
	return vm.balloon.Actual()
}
