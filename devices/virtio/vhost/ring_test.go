package vhost

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/eventfd"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var names = map[uintptr]string{
	reqSetSize: "size", reqSetNext: "next", reqSetKick: "kick", reqSetCall: "call", reqSetError: "error", reqSetBackend: "backend",
}

// A fakeKernel notes what it is asked for, and fails when it comes to fail.
type fakeKernel struct {
	mu    sync.Mutex
	asked []string
	fail  string
	files map[uintptr]int
	areas [3][]byte
	next  uint16
	fed   chan struct{} // closed when there is a backend
}

var errInjected = errors.New("injected")

func newFake() *fakeKernel { return &fakeKernel{files: map[uintptr]int{}, fed: make(chan struct{})} }

func (k *fakeKernel) ask(what string) error {
	k.asked = append(k.asked, what)
	if what == k.fail {
		return errInjected
	}
	return nil
}

func (k *fakeKernel) SetFeatures(f uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ask(fmt.Sprintf("features %#x", f))
}

func (k *fakeKernel) SetNumber(request uintptr, ring int, n uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ask(fmt.Sprint(ring, " ", names[request], " ", n))
}

func (k *fakeKernel) Next(ring int) (uint16, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.next, k.ask(fmt.Sprint(ring, " get next"))
}

func (k *fakeKernel) SetAreas(ring int, desc, avail, used []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.areas = [3][]byte{desc, avail, used}
	return k.ask(fmt.Sprint(ring, " areas"))
}

func (k *fakeKernel) SetFile(request uintptr, ring, fd int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files[request] = fd
	what := fmt.Sprint(ring, " ", names[request])
	if fd < 0 {
		what += " off"
	}
	err := k.ask(what)
	if request == reqSetBackend && fd >= 0 && err == nil {
		close(k.fed)
	}
	return err
}

func (k *fakeKernel) Close() error { return k.ask("close") }

func (k *fakeKernel) file(request uintptr) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.files[request]
}

// lane is descriptor 77, or an error.
type lane struct{ err error }

func (lane) Check() error { return nil }
func (l lane) Control(f func(int) error) error {
	if l.err != nil {
		return l.err
	}
	return f(77)
}

// A directIRQ is an interrupt with an eventfd that leads to the guest at times.
type directIRQ struct {
	signal *virtiotest.Signal
	set    func(int)
}

func (d *directIRQ) Signal() { d.signal.Signal() }

func (d *directIRQ) Follow(set func(int)) (stop func()) {
	d.set = set
	set(55)
	return func() { d.set = nil }
}

// A bench is a queue of 8 that is to be lent, with three chains done.
type bench struct {
	t    *testing.T
	k    *fakeKernel
	n    *Net
	kick *eventfd.Event
	irq  queue.Interrupt
	q    *queue.Queue
	end  context.CancelFunc
	done chan error
}

func newBench(t *testing.T, irq queue.Interrupt) *bench {
	k := newFake()
	b := &bench{t: t, k: k, n: &Net{pairs: []kernel{nil, k}}, irq: irq, done: make(chan error, 1)}
	var err error
	b.kick, err = eventfd.New()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.kick.Close()) })
	mem := virtiotest.NewMemory(1<<32, 1<<20)
	r := virtiotest.NewRing(mem, 8, queue.Features{})
	r.State.NextAvail, r.State.NextUsed = 3, 3
	b.q, err = queue.New(r.State, queue.Features{}, mem, b.kick, irq)
	require.NoError(t, err)
	return b
}

// used is the used ring that the kernel was told of.
func (b *bench) used() []byte {
	b.k.mu.Lock()
	defer b.k.mu.Unlock()
	return b.k.areas[2]
}

func (b *bench) serve(l lane) {
	var ctx context.Context
	ctx, b.end = context.WithTimeout(context.Background(), time.Minute)
	go func() {
		b.done <- b.n.Serve(ctx, 3, virtio.FeatVersion1|featMrgRxbuf|virtio.FeatRingReset|1<<27|1, b.q, l)
	}()
}

var (
	begin = []string{"features 0x100008000", "1 size 8", "1 next 3", "1 areas", "1 error", "1 kick", "1 call", "1 backend"}
	end   = []string{"1 backend off", "1 get next", "1 kick off", "1 call off", "1 error off"}
)

func TestARingIsTheKernelsForAWhile(t *testing.T) {
	irq := virtiotest.NewSignal()
	b := newBench(t, irq)
	for range 2 { // pause and resume
		b.serve(lane{})
		<-b.k.fed
		b.k.mu.Lock()
		require.Equal(t, begin, b.k.asked)
		require.Equal(t, 77, b.k.files[reqSetBackend])
		require.Equal(t, b.kick.FD(), b.k.files[reqSetKick])
		b.k.next = 12
		binary.LittleEndian.PutUint16(b.k.areas[2][2:], 12)
		b.k.mu.Unlock()
		require.NoError(t, b.kick.Block(context.Background(), func() bool { return true }), "told to look at the ring")

		for i := range 3 {
			eventfd.Signal(b.k.file(reqSetCall))
			require.Eventually(t, func() bool { return irq.Count() == i+1 }, time.Minute, time.Millisecond)
		}
		b.end()
		require.ErrorIs(t, <-b.done, context.Canceled)
		require.Equal(t, slices.Concat(begin, end), b.k.asked)
		require.EqualValues(t, 12, b.q.State().NextAvail)
		require.EqualValues(t, 12, b.q.State().NextUsed)
		b.q.TakeBack(3)
		b.k.asked, b.k.fed, irq = nil, make(chan struct{}), virtiotest.NewSignal()
		b.q, _ = queue.New(b.q.State(), queue.Features{}, memoryOf(b), b.kick, irq)
	}
}

// TestAnInterruptIsNotLostAtTheEnd: what the kernel signalled before it stopped gets
// through before Serve returns.
func TestAnInterruptIsNotLostAtTheEnd(t *testing.T) {
	for range 100 {
		irq := virtiotest.NewSignal()
		b := newBench(t, irq)
		b.serve(lane{})
		<-b.k.fed
		eventfd.Signal(b.k.file(reqSetCall))
		b.end()
		require.ErrorIs(t, <-b.done, context.Canceled)
		require.Equal(t, 1, irq.Count())
	}
}

func TestTheKernelInterruptsByItselfWhereItCan(t *testing.T) {
	irq := &directIRQ{signal: virtiotest.NewSignal()}
	b := newBench(t, irq)
	b.serve(lane{})
	<-b.k.fed
	require.Equal(t, 55, b.k.file(reqSetCall))
	irq.set(-1)
	eventfd.Signal(b.k.file(reqSetCall))
	<-irq.signal.C()
	irq.set(56)
	require.Equal(t, 56, b.k.file(reqSetCall))
	b.end()
	require.ErrorIs(t, <-b.done, context.Canceled)
	require.Nil(t, irq.set, "no longer followed")
	require.Equal(t, -1, b.k.file(reqSetCall))

	b.k.fed, b.k.fail = make(chan struct{}), "1 call"
	b.serve(lane{})
	require.ErrorIs(t, <-b.done, errInjected)
}

// TestARingThatTheKernelCannotFollow ends as one that we cannot.
func TestARingThatTheKernelCannotFollow(t *testing.T) {
	b := newBench(t, virtiotest.NewSignal())
	b.serve(lane{})
	<-b.k.fed
	eventfd.Signal(b.k.file(reqSetError))
	require.ErrorIs(t, <-b.done, queue.ErrBadRing)
	require.Equal(t, slices.Concat(begin, end), b.k.asked)
}

// TestWhatTheKernelForgot is taken up again.
func TestWhatTheKernelForgot(t *testing.T) {
	b := newBench(t, virtiotest.NewSignal())
	b.serve(lane{})
	<-b.k.fed
	binary.LittleEndian.PutUint16(b.used()[2:], 4)
	b.k.mu.Lock()
	b.k.next = 6
	b.k.mu.Unlock()
	b.end()
	require.ErrorIs(t, <-b.done, context.Canceled)
	require.EqualValues(t, 4, b.q.State().NextAvail)
	require.EqualValues(t, 4, b.q.State().NextUsed)
}

// TestEveryRequestMayFail: the ring is taken back whatever did.
func TestEveryRequestMayFail(t *testing.T) {
	for _, fail := range slices.Concat(begin, end) {
		b := newBench(t, virtiotest.NewSignal())
		b.k.fail, b.k.next = fail, 3
		b.serve(lane{})
		if slices.Contains(end, fail) {
			<-b.k.fed
			b.end()
		}
		err := <-b.done
		require.ErrorIs(t, err, errInjected, fail)
		require.NotErrorIs(t, err, context.Canceled, "it would be taken for a good end")
		for _, request := range []string{"1 backend off", "1 kick off", "1 call off", "1 error off"} {
			require.Contains(t, b.k.asked, request, "after %s", fail)
		}
	}
	b := newBench(t, virtiotest.NewSignal())
	b.serve(lane{err: os.ErrClosed})
	require.ErrorIs(t, <-b.done, os.ErrClosed)
	b.q, _ = queue.New(b.q.State(), queue.Features{}, memoryOf(b), virtiotest.NewSignal(), b.irq)
	b.serve(lane{})
	require.ErrorIs(t, <-b.done, ErrKick)
}

// memoryOf is the memory that the bench's queue is in.
func memoryOf(b *bench) queue.Memory {
	s := b.q.State()
	l := b.q.Lend()
	return areas{s.Desc: l.Desc, s.Driver: l.Avail, s.Device: l.Used}
}

type areas map[uint64][]byte

func (a areas) Readable(gpa, n uint64) ([]byte, error) { return a[gpa][:n:n], nil }
func (a areas) Writable(gpa, n uint64) ([]byte, error) { return a[gpa][:n:n], nil }

func TestWhyItCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	missing, file := filepath.Join(dir, "vhost-net"), filepath.Join(dir, "file")
	_, err := Open(missing, 1, nil)
	require.ErrorIs(t, err, ErrVhost)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, missing)
	require.ErrorContains(t, err, "modprobe vhost_net")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(file, 1, nil)
	require.ErrorIs(t, err, ErrVhost)
	require.ErrorContains(t, err, "no vhost-net")
	_, err = Open(file, 1, make([]Region, 65))
	require.ErrorContains(t, err, "65 pieces of RAM")
}
