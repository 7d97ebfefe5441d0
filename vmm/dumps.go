package vmm

import (
	"context"
	"fmt"
)

// Dumps gives the state of every vCPU, in their order: of a machine that runs, hangs,
// is paused, or is not running now. Each vCPU leaves the guest for the moment that
// this takes, and not all of them at the same one; who wants registers and memory
// that belong together calls Pause before.
//
// When ctx ends first, the vCPUs that have not answered (a device keeps them) are left
// out, and the error tells of the first.
func (vm *VM) Dumps(ctx context.Context) ([]Dump, error) {
	if err := vm.lock(ctx); err != nil {
		return nil, err
	}
	// The lock keeps what is not running from beginning to run, and from being closed.
	defer vm.mu.Unlock()
	if vm.closed {
		return nil, errClosed
	}
	answers := make([]<-chan *Dump, len(vm.vcpus))
	for i, c := range vm.vcpus {
		answers[i] = vm.ask(ctx, c)
	}
	var dumps []Dump
	var failed error
	for i, c := range vm.vcpus {
		d := c.answer(ctx, answers[i])
		if d != nil {
			dumps = append(dumps, *d)
		} else if failed == nil {
			failed = fmt.Errorf("vCPU %d does not answer: %w", c.id, context.Cause(ctx))
		}
	}
	return dumps, failed
}

// ReadVirtual reads guest memory at a virtual address, as the vCPU of a Dump would
// have with the page tables it had then. It returns how many bytes of p it has read;
// where that is not all, the error says what stands in the way.
func (vm *VM) ReadVirtual(d *Dump, gva uint64, p []byte) (int, error) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.closed {
		return 0, errClosed
	}
	return d.space().Read(vm.mem, gva, p)
}

// lock takes vm.mu unless ctx ends first. A Pause may hold it for as long as a device
// keeps a vCPU.
func (vm *VM) lock(ctx context.Context) error {
	locked := make(chan struct{})
	go func() {
		vm.mu.Lock()
		select {
		case locked <- struct{}{}:
		case <-ctx.Done():
			vm.mu.Unlock()
		}
	}()
	select {
	case <-locked:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask has a vCPU's thread dump its state. The caller holds vm.mu.
func (vm *VM) ask(ctx context.Context, c *vcpu) <-chan *Dump {
	answer := make(chan *Dump, 1) // so that an answer that comes too late keeps nobody
	if !vm.running {
		answer <- c.dump()
		return answer
	}
	c.post(ctx, func(context.Context) { answer <- c.dump() })
	return answer
}

// answer waits for what ask has asked for; it is nil when ctx ends first. A thread
// that has ended leaves the vCPU to the caller.
func (c *vcpu) answer(ctx context.Context, answer <-chan *Dump) *Dump {
	select {
	case d := <-answer:
		return d
	default:
	}
	select {
	case d := <-answer:
		return d
	case <-c.done:
		return c.dump()
	case <-ctx.Done():
		return nil
	}
}
