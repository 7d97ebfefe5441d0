// Package tap is a link to an interface of the host, by Linux's tun driver
// (Documentation/networking/tuntap.rst).
package tap

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/netdev"
)

// ErrTap is why a tap interface can not be had. The error says what to do.
var ErrTap = errors.New("cannot open tap")

const clone = "/dev/net/tun"

// maxQueues is the driver's MAX_TAP_QUEUES.
const maxQueues = 256

// A Link is a tap interface.
type Link struct {
	name   string
	info   ethernet.Info
	queues []*queue

	mu       sync.Mutex // serialises SetQueues and Close
	attached int        // queues that the driver sends to
	closed   bool
}

var _ netdev.Link = (*Link)(nil)

// Open attaches to the tap interface of that name with the number of queues
// given, and creates the interface if there is none; it is then gone after Close.
// One that exists must have been made for as many queues (multi_queue, if more
// than one). A name with %d is numbered by the kernel; Name tells.
//
// mtu is what the guest may be told and what an interface made here gets; 0
// takes the interface's. Creating one, or attaching to one of another user's,
// takes CAP_NET_ADMIN. Setting addresses, bridges and the like is not done here.
func Open(name string, queues, mtu int) (*Link, error) {
	if queues < 1 || queues > maxQueues {
		return nil, fmt.Errorf("%w %s: %d queues; the driver has 1 to %d", ErrTap, name, queues, maxQueues)
	}
	l := &Link{name: name, attached: queues}
	for range queues {
		if err := l.attach(queues > 1); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	mtu, err := l.settle(mtu)
	if err == nil {
		err = l.SetOffloads(0)
	}
	if err == nil {
		err = l.SetQueues(1)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w %s: %w", ErrTap, l.name, err), l.Close())
	}
	all := ethernet.Checksum | ethernet.TSO4 | ethernet.TSO6 | ethernet.ECN
	l.info = ethernet.Info{MTU: mtu, Queues: queues, Takes: all, Gives: all, Threads: true}
	return l, nil
}

// attach opens one more descriptor on the interface.
func (l *Link) attach(multi bool) error {
	fd, err := unix.Open(clone, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w %s: %s: %w; load the tun module, or use the user network", ErrTap, l.name, clone, err)
	case err != nil:
		return fmt.Errorf("%w %s: %s: %w; take the permission to open it, or use the user network", ErrTap, l.name, clone, err)
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if multi {
		flags |= unix.IFF_MULTI_QUEUE
	}
	name, err := setInterface(fd, l.name, flags)
	if err == nil {
		l.name = name
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, ethernet.HeaderSize)
	}
	if err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written
		return fmt.Errorf("%w %s: %w%s", ErrTap, l.name, err, l.advice(err, multi))
	}
	q, err := newQueue(fd)
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrTap, l.name, err)
	}
	l.queues = append(l.queues, q)
	return nil
}

// setInterface is TUNSETIFF. It returns the name that the interface has.
func setInterface(fd int, name string, flags uint16) (string, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return "", err
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return "", err
	}
	return ifr.Name(), nil
}

// advice says what TUNSETIFF's error means (drivers/net/tun.c: tun_set_iff).
func (l *Link) advice(err error, multi bool) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Sprintf("; it takes CAP_NET_ADMIN, or an interface made for this user: ip tuntap add %s mode tap user $USER", l.name)
	case errors.Is(err, unix.EBUSY):
		return "; another program is attached to it"
	case errors.Is(err, unix.E2BIG):
		return "; it has no queue left"
	case errors.Is(err, unix.EINVAL):
		made := ""
		if p, err := os.ReadFile("/sys/class/net/" + l.name + "/tun_flags"); err == nil {
			made = strings.TrimSpace(string(p))
		} else if _, err := os.Stat("/sys/class/net/" + l.name); err == nil {
			return "; that interface is no tap"
		}
		want := "without multi_queue, for one queue"
		if multi {
			want = "with multi_queue, for several queues"
		}
		return fmt.Sprintf("; the interface (tun_flags %s) must be a tap made %s", made, want)
	}
	return ""
}

// settle reads the interface's MTU, and raises it to mtu where that is asked for.
func (l *Link) settle(mtu int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // a socket without data
	ifr, err := unix.NewIfreq(l.name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFMTU, ifr); err != nil {
		return 0, fmt.Errorf("MTU: %w", err)
	}
	has := int(ifr.Uint32())
	if mtu == 0 || mtu == has {
		return has, nil
	}
	ifr.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr); err != nil {
		return 0, fmt.Errorf("MTU %d: %w; the interface has %d", mtu, err, has)
	}
	return mtu, nil
}

// Name returns the interface's name.
func (l *Link) Name() string { return l.name }

// Info implements netdev.Link.
func (l *Link) Info() ethernet.Info { return l.info }

// Queue implements netdev.Link.
func (l *Link) Queue(i int) ethernet.Queue { return l.queues[i] }

// SetOffloads implements netdev.Link with TUNSETOFFLOAD, which is about what the
// driver gives to the reader.
func (l *Link) SetOffloads(o ethernet.Offloads) error {
	flags := 0
	if o&ethernet.Checksum != 0 {
		flags |= unix.TUN_F_CSUM
		for _, f := range []struct {
			offload ethernet.Offloads
			flag    int
		}{{ethernet.TSO4, unix.TUN_F_TSO4}, {ethernet.TSO6, unix.TUN_F_TSO6}} {
			if o&f.offload != 0 {
				flags |= f.flag
			}
		}
		if o&ethernet.ECN != 0 && o&(ethernet.TSO4|ethernet.TSO6) != 0 {
			flags |= unix.TUN_F_TSO_ECN
		}
	}
	return l.queues[0].control("TUNSETOFFLOAD", func(fd int) error {
		return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags)
	})
}

// SetQueues implements netdev.Link with TUNSETQUEUE. The driver then spreads
// flows over the first n.
func (l *Link) SetQueues(n int) error {
	if n < 1 || n > len(l.queues) {
		return fmt.Errorf("tap %s: %d queues; it has %d", l.name, n, len(l.queues))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.attached < n {
		if err := l.queues[l.attached].steer(unix.IFF_ATTACH_QUEUE); err != nil {
			return err
		}
		l.attached++
	}
	for l.attached > n {
		if err := l.queues[l.attached-1].steer(unix.IFF_DETACH_QUEUE); err != nil {
			return err
		}
		l.attached--
	}
	return nil
}

// Close implements netdev.Link. An interface that was made by Open, and not made
// persistent since, disappears.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, q := range l.queues {
		errs = append(errs, q.close())
	}
	return errors.Join(errs...)
}
