package net

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/ethernet"
)

var errGone = errors.New("the interface is gone")

const allOffloads = ethernet.Checksum | ethernet.TSO4 | ethernet.TSO6 | ethernet.ECN

// A fakeLink is a link in memory. As with tap, it is an error to listen to a
// queue that SetQueues has left out.
type fakeLink struct {
	info  ethernet.Info
	lanes []*fakeLane

	mu       sync.Mutex
	offloads ethernet.Offloads
}

func newLink(queues int) *fakeLink {
	l := &fakeLink{info: ethernet.Info{MTU: 1500, Queues: queues, Takes: allOffloads, Gives: allOffloads}}
	for i := range queues {
		l.lanes = append(l.lanes, &fakeLane{wake: make(chan struct{}, 1), detached: i > 0, sent: make(chan [][]byte, 1000)})
	}
	return l
}

func (l *fakeLink) Info() ethernet.Info        { return l.info }
func (l *fakeLink) Queue(i int) ethernet.Queue { return l.lanes[i] }

func (l *fakeLink) SetOffloads(o ethernet.Offloads) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offloads = o
	return nil
}

func (l *fakeLink) gives() ethernet.Offloads {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offloads
}

func (l *fakeLink) SetQueues(n int) error {
	for i, lane := range l.lanes {
		lane.mu.Lock()
		lane.detached = i >= n
		lane.mu.Unlock()
	}
	return nil
}

// attached is how many queues the link sends to.
func (l *fakeLink) attached() (n int) {
	for _, lane := range l.lanes {
		lane.mu.Lock()
		if !lane.detached {
			n++
		}
		lane.mu.Unlock()
	}
	return n
}

type fakeLane struct {
	sent chan [][]byte // what Send got, the slices themselves
	wake chan struct{}

	mu       sync.Mutex
	waiting  [][]byte
	receives int
	detached bool
	sendErr  error
	failed   error
}

// give has a frame wait to be received.
func (l *fakeLane) give(frames ...[]byte) {
	l.mu.Lock()
	l.waiting = append(l.waiting, frames...)
	l.mu.Unlock()
	l.signal()
}

func (l *fakeLane) fail(err error) {
	l.mu.Lock()
	l.failed = err
	l.mu.Unlock()
	l.signal()
}

func (l *fakeLane) failSends(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sendErr = err
}

func (l *fakeLane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *fakeLane) Send(frame [][]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sendErr != nil {
		return l.sendErr
	}
	l.sent <- slices.Clone(frame)
	return nil
}

func (l *fakeLane) Receive(frame [][]byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.receives++
	if l.failed != nil || l.detached {
		return 0, errGone
	}
	if len(l.waiting) == 0 {
		return 0, nil
	}
	next := l.waiting[0]
	l.waiting = l.waiting[1:]
	n := len(next)
	for _, s := range frame {
		next = next[copy(s, next):]
	}
	if len(next) > 0 {
		return 0, ethernet.ErrTooLong
	}
	return n, nil
}

func (l *fakeLane) Wait(ctx context.Context) error {
	l.mu.Lock()
	ready := len(l.waiting) > 0 || l.failed != nil || l.detached
	l.mu.Unlock()
	if ready {
		return ctx.Err()
	}
	select {
	case <-l.wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Control and Check implement ethernet.Descriptor.
func (l *fakeLane) Control(f func(fd int) error) error { return f(-1) }

func (l *fakeLane) Check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// calls is how often Receive was called.
func (l *fakeLane) calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.receives
}

// newFrame is a frame with a header, and size bytes behind that.
func newFrame(h ethernet.Header, size int) []byte {
	p := make([]byte, ethernet.HeaderSize+size)
	h.Put(p)
	for i := range p[ethernet.HeaderSize:] {
		p[ethernet.HeaderSize+i] = byte(i*7 + i>>8)
	}
	return p
}

func TestOnlyACardCanBe(t *testing.T) {
	for _, mac := range []string{"", "\x02\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00", "\x03\x00\x00\x00\x00\x01"} {
		_, err := New(newLink(1), []byte(mac), nil)
		require.ErrorContains(t, err, "address", "%x", mac)
	}
	_, err := New(&fakeLink{}, mac, nil)
	require.ErrorContains(t, err, "0 queues")
}

func TestWhatIsOffered(t *testing.T) {
	none := ethernet.Info{Queues: 1}
	require.Zero(t, offered(none)&(featCsum|guestOffloads|featHostTSO4|featMQ|featMTU|featCtrlGuestOffloads))
	all := newLink(4).info
	want := uint64(featCsum | guestOffloads | featHostTSO4 | featHostTSO6 | featHostECN | featMQ | featMTU | featCtrlGuestOffloads)
	require.Equal(t, want, offered(all)&want)
	all.Gives, all.Takes = ethernet.TSO4, ethernet.Checksum|ethernet.ECN
	require.EqualValues(t, featCsum, offered(all)&(featCsum|featHostECN|guestOffloads|featCtrlGuestOffloads), "nothing without what it takes")
}
