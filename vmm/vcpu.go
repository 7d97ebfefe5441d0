package vmm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/kvm"
	"github.com/huskvm/husk/vmm/paging"
)

// A vcpu is an OS thread with a mailbox. The thread is inside KVM_RUN nearly
// all the time; a kick brings it out to look at its mail.
type vcpu struct {
	id        int
	kvm       *kvm.VCPU
	pio, mmio *devices.Bus
	ram       paging.RAM
	stop      func(Result) // ends the machine's run; returns at once
	entering  func()       // called when the thread is about to enter the guest

	mail chan func(context.Context)
	tid  atomic.Int32 // of the thread, while it runs
	done chan struct{}

	mu    sync.Mutex // guards what Stats reads
	exits map[string]uint64
	ports map[uint16]*PortCount
	// others are the ports beyond maxPorts.
	others PortCount
}

// maxPorts bounds what a guest that tries every port can make husk remember.
const maxPorts = 256

func newVCPU(id int, k *kvm.VCPU) *vcpu {
	return &vcpu{
		id: id, kvm: k,
		mail:  make(chan func(context.Context), 4),
		exits: make(map[string]uint64),
		ports: make(map[uint16]*PortCount),
	}
}

// kick makes the thread leave KVM_RUN and look into its mailbox. The flag
// reaches a thread that is just about to enter, the signal one that is inside.
// SIGURG is the signal by which Go preempts threads, so its handler is there.
func (c *vcpu) kick() {
	c.kvm.SetImmediateExit(true)
	if tid := c.tid.Load(); tid != 0 {
		_ = unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG) // a thread that has just gone needs no kick
	}
}

// post has f called on the vCPU's thread, outside of KVM_RUN. It reports false
// if the thread, or ctx, has ended: a thread that is kept by a device does not empty
// its mailbox.
func (c *vcpu) post(ctx context.Context, f func(context.Context)) bool {
	select {
	case c.mail <- f:
		c.kick()
		return true
	case <-c.done:
	case <-ctx.Done():
	}
	return false
}

// loop runs the vCPU until ctx ends. It owns the calling goroutine's thread.
func (c *vcpu) loop(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(c.done)
	c.tid.Store(int32(unix.Gettid()))
	defer c.tid.Store(0)
	c.entering()

	for ctx.Err() == nil {
		exit, err := c.kvm.Run()
		if err != nil {
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
				c.fail(InternalError, fmt.Sprintf("vCPU %d: %v", c.id, err), nil)
				return
			}
			// Clear before looking: a kick that comes in between sets it again.
			c.kvm.SetImmediateExit(false)
			c.readMail(ctx)
			continue
		}
		c.handle(exit)
	}
}

func (c *vcpu) readMail(ctx context.Context) {
	for {
		select {
		case f := <-c.mail:
			f(ctx)
		default:
			return
		}
	}
}

// park holds the thread, which is the caller's, until resume is closed or the run
// ends. It reads its mail all the same.
func (c *vcpu) park(ctx context.Context, resume <-chan struct{}) {
	for {
		select {
		case <-resume:
			return
		case <-ctx.Done():
			return
		case f := <-c.mail:
			f(ctx)
		}
	}
}

// handle does what the guest's exit asks for.
func (c *vcpu) handle(exit kvm.Exit) {
	c.count(exit)
	switch e := exit.(type) {
	case *kvm.IOExit:
		for p := e.Data; len(p) >= e.Size; p = p[e.Size:] {
			if e.In {
				c.pio.Load(uint64(e.Port), p[:e.Size])
			} else {
				c.pio.Store(uint64(e.Port), p[:e.Size])
			}
		}
	case *kvm.MMIOExit:
		if e.Write {
			c.mmio.Store(e.Addr, e.Data)
		} else {
			c.mmio.Load(e.Addr, e.Data)
		}
	case *kvm.HaltExit:
		// KVM's own local APIC waits for interrupts; if it returns all the
		// same, going in again is right.
	case *kvm.ShutdownExit:
		c.fail(TripleFault, fmt.Sprintf("vCPU %d: triple fault", c.id), nil)
	case *kvm.SystemEventExit:
		c.systemEvent(e)
	case *kvm.InternalErrorExit:
		c.fail(InternalError, fmt.Sprintf("vCPU %d: KVM internal error: %v", c.id, e), e)
	case *kvm.FailEntryExit:
		c.fail(InternalError, fmt.Sprintf("vCPU %d: the processor refused to enter the guest, hardware reason %#x", c.id, e.HardwareReason), nil)
	default:
		c.fail(InternalError, fmt.Sprintf("vCPU %d: unexpected exit: %s", c.id, exit.Reason()), nil)
	}
}

func (c *vcpu) systemEvent(e *kvm.SystemEventExit) {
	switch e.Type {
	case kvm.SystemEventShutdown:
		c.stop(Result{Outcome: PowerOff, Detail: "KVM system event"})
	case kvm.SystemEventReset:
		c.stop(Result{Outcome: Reboot, Detail: "KVM system event"})
	case kvm.SystemEventCrash:
		c.stop(Result{Outcome: GuestPanic, Detail: "KVM system event"})
	default:
		c.fail(InternalError, fmt.Sprintf("vCPU %d: unknown system event %d", c.id, e.Type), nil)
	}
}

// fail ends the run with what can be told about this vCPU.
func (c *vcpu) fail(o Outcome, detail string, e *kvm.InternalErrorExit) {
	c.stop(Result{Outcome: o, Detail: detail, Dump: c.failure(o, e)})
}

func (c *vcpu) count(exit kvm.Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exits[exit.Reason()]++
	if e, ok := exit.(*kvm.IOExit); ok {
		p := c.ports[e.Port]
		switch {
		case p != nil:
		case len(c.ports) < maxPorts:
			p = new(PortCount)
			c.ports[e.Port] = p
		default:
			p = &c.others
		}
		if e.In {
			p.Reads++
		} else {
			p.Writes++
		}
	}
}
