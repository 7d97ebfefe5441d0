package vmm

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// panicGrace is how long a kernel that has reported its panic may go on to
// print its trace and, if it was told to, reboot.
const panicGrace = 2 * time.Second

var (
	errRunning = errors.New("the machine is running already")
	errClosed  = errors.New("the machine is closed")
)

// Run drives the machine until its guest stops or ctx ends, which is the
// outcome Cancelled. When it returns, no vCPU runs, no device works, and the
// guest's last byte is with Serial.Out. An error means that husk itself failed.
// After Cancelled, Run may be called again and the guest goes on. While it runs, the
// process may run more goroutines at a time (GOMAXPROCS): see addProcs.
func (vm *VM) Run(ctx context.Context) (*Result, error) {
	if err := vm.beginRun(); err != nil {
		return nil, err
	}
	threads := len(vm.vcpus) + min(vm.queues, busyQueues)
	addProcs(threads)
	defer addProcs(-threads)

	stopConsole := vm.startConsole()
	vm.resumeVirtio(len(vm.virtio))
	cpuCtx, stopCPUs := context.WithCancel(ctx)
	defer stopCPUs()
	var cpus sync.WaitGroup
	for _, c := range vm.vcpus {
		cpus.Go(func() { c.loop(cpuCtx) })
	}

	result := vm.wait(ctx)
	stopCPUs()
	for _, c := range vm.vcpus {
		c.kick()
	}
	cpus.Wait()
	vm.timeline.mark(MarkerStopped)
	// The devices first: then the console has all that the guest sent.
	err := vm.pauseVirtio()
	err = errors.Join(err, stopConsole(), vm.endRun(err == nil))
	vm.blamePanic(&result)
	return &result, err
}

// wait is until the guest stops or ctx ends.
func (vm *VM) wait(ctx context.Context) Result {
	select {
	case r := <-vm.outcome:
		return r
	case <-ctx.Done():
	case <-vm.panicking:
		select {
		case r := <-vm.outcome:
			return r
		case <-ctx.Done():
		case <-time.After(panicGrace):
			return Result{Outcome: GuestPanic}
		}
	}
	return Result{Outcome: Cancelled, Detail: context.Cause(ctx).Error()}
}

// blamePanic makes a result that followed from a kernel's panic say so. A reset
// is one also where only the console tells of the panic: not every kernel has
// the pvpanic driver.
func (vm *VM) blamePanic(r *Result) {
	line, onConsole := vm.console.panicked()
	if !onConsole {
		line, onConsole = vm.hvcWatch.panicked()
	}
	reported := false
	select {
	case <-vm.panicking:
		reported = true
	default:
	}
	switch r.Outcome {
	case Reboot:
		if !reported && !onConsole {
			return
		}
	case PowerOff, TripleFault, GuestPanic:
		if !reported {
			return
		}
	default:
		return
	}
	r.Outcome, r.Detail = GuestPanic, line
}

func (vm *VM) beginRun() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.closed {
		return errClosed
	}
	if vm.running {
		return errRunning
	}
	vm.running = true
	for _, c := range vm.vcpus {
		c.done = make(chan struct{})
	}
	return nil
}

// endRun stops the devices again unless that has failed before, and keeps the lock
// meanwhile: a Resume after that would have them work on in a machine that does not
// run.
func (vm *VM) endRun(pause bool) (err error) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if pause {
		err = vm.pauseVirtio()
	}
	vm.running = false
	if vm.resume != nil {
		close(vm.resume)
		vm.resume = nil
	}
	return err
}

// startConsole connects the serial port and the virtio console. The function it
// returns waits until all output is out and ends both directions.
func (vm *VM) startConsole() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	var output sync.WaitGroup
	var failed error
	output.Go(func() {
		if err := vm.board.serial.Serve(ctx); err != nil && !errors.Is(err, context.Canceled) {
			failed = err
		}
	})
	stopSerial := vm.startInput(ctx, vm.cfg.Serial, vm.board.serial.Input)
	stopHVC := func() {}
	if vm.hvc != nil {
		stopHVC = vm.startInput(ctx, vm.cfg.Console, vm.hvc.Input)
	}
	return func() error {
		cancel()
		output.Wait()
		if vm.hvc != nil {
			failed = errors.Join(failed, vm.hvc.Flush(context.Background()))
		}
		stopSerial()
		stopHVC()
		return failed
	}
}

// startInput has the guest receive what comes from an end's In, if there is one.
// The function it returns, called after the end of ctx, waits for the last of it.
func (vm *VM) startInput(ctx context.Context, end *Serial, give func(context.Context, []byte) (int, error)) (stop func()) {
	if end == nil || end.In == nil {
		return func() {}
	}
	var input sync.WaitGroup
	input.Go(func() { vm.feed(ctx, end.In, give) })
	return func() {
		// A read that cannot be interrupted stays behind until its next byte.
		if d, ok := end.In.(interface{ SetReadDeadline(time.Time) error }); ok && d.SetReadDeadline(time.Unix(1, 0)) == nil {
			input.Wait()
			_ = d.SetReadDeadline(time.Time{})
		}
	}
}

// feed gives the guest what comes from in, as fast as it takes it.
func (vm *VM) feed(ctx context.Context, in io.Reader, give func(context.Context, []byte) (int, error)) {
	buf := make([]byte, 512)
	for ctx.Err() == nil {
		n, err := in.Read(buf)
		if ctx.Err() != nil {
			return // the machine may be closed by now
		}
		if n > 0 {
			if _, err := give(ctx, buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				vm.log.Warn("no more input for the guest's console", "err", err)
			}
			return
		}
	}
}

// PowerButton presses the power button: the guest is asked to shut down. On a
// closed machine it does nothing.
func (vm *VM) PowerButton() {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.closed {
		vm.board.power.PressPowerButton()
	}
}

// Break sends a break on the serial port, which Linux takes for the SysRq key. It
// waits until the guest has room for it, or ctx ends.
func (vm *VM) Break(ctx context.Context) error { return vm.board.serial.Break(ctx) }

// Pause stops all vCPUs between two instructions, and all devices between two
// requests, until Resume or the end of Run. It returns when nothing goes on. A
// paused machine can be paused again.
func (vm *VM) Pause() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.running {
		return errors.New("the machine is not running")
	}
	if vm.resume != nil {
		return nil
	}
	resume := make(chan struct{})
	vm.resume = resume
	parked := make(chan struct{}, len(vm.vcpus))
	for _, c := range vm.vcpus {
		if !c.post(context.Background(), func(ctx context.Context) {
			parked <- struct{}{}
			c.park(ctx, resume)
		}) {
			continue
		}
		select {
		case <-parked:
		case <-c.done:
		}
	}
	if err := vm.pauseVirtio(); err != nil {
		vm.resumeVirtio(len(vm.virtio))
		close(resume)
		vm.resume = nil
		return err
	}
	return nil
}

// Resume lets the vCPUs of a paused machine go on.
func (vm *VM) Resume() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.resume == nil {
		return errors.New("the machine is not paused")
	}
	vm.resumeVirtio(len(vm.virtio))
	close(vm.resume)
	vm.resume = nil
	return nil
}
