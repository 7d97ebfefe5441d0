package vmm

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/devices/pvpanic"
	"github.com/huskvm/husk/devices/share"
	"github.com/huskvm/husk/devices/virtio/balloon"
	"github.com/huskvm/husk/devices/virtio/console"
	"github.com/huskvm/husk/devices/virtio/vsock"
	"github.com/huskvm/husk/firmware/acpi"
	"github.com/huskvm/husk/kvm"
	"github.com/huskvm/husk/vmm/cpuid"
	"github.com/huskvm/husk/vmm/memory"
)

// A VM is a machine, ready to run or running. Its methods can be called from
// any goroutine.
type VM struct {
	cfg      Config
	log      *slog.Logger
	timeline timeline
	closers  []func() error // what New has taken, in that order

	sys      *kvm.System
	kvm      *kvm.VM
	mem      *memory.Memory
	board    *board
	console  *consoleWatch
	entry    boot.Entry
	vcpus    []*vcpu
	counters []*kvm.Stats

	interrupts *interruptTable
	disks      []*disk.Disk
	links      []netdev.Link
	shares     []*share.Share
	published  []netdev.Publish
	virtio     []plugged
	queues     int // of all of them
	io         ioCounters

	hvc      *console.Device // nil without
	hvcWatch *consoleWatch
	balloon  *balloon.Device // nil without
	vsock    *vsock.Device   // nil without

	outcome   chan Result   // the first, and only the first
	panicking chan struct{} // closed when the guest says that it panics
	panicOnce sync.Once
	crashOnce sync.Once // so that the guest cannot flood the log
	firstRun  sync.Once

	mu      sync.Mutex // guards what follows
	running bool
	closed  bool
	resume  chan struct{} // closed by Resume; nil unless paused
}

// New makes the machine that cfg describes, with its kernel loaded, and takes
// from the host all it needs to run. On failure nothing of it is left.
func New(cfg Config) (*VM, error) {
	return build(cfg, func(string) error { return nil })
}

// build is New with a call before each of its steps, which may make it fail there.
func build(cfg Config, before func(step string) error) (_ *VM, err error) {
	start := time.Now()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	vm := &VM{
		cfg: cfg, log: cfg.Log,
		timeline:  timeline{start: start},
		outcome:   make(chan Result, 1),
		panicking: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, vm.Close())
		}
	}()
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"open KVM", vm.openKVM},
		{"guest RAM", vm.mapRAM},
		{"virtual machine", vm.createVM},
		{"memory slots", vm.plugRAM},
		{"interrupt controllers", vm.createIRQChip},
		{"chips", vm.createBoard},
		{"disks", vm.openDisks},
		{"networks", vm.openNetworks},
		{"shares", vm.openShares},
		{"virtio devices", vm.plugVirtio},
		{"firmware", vm.writeFirmware},
		{"kernel", vm.loadKernel},
		{"processors", vm.createVCPUs},
		{"processor registers", vm.setRegisters},
	} {
		if err := before(step.name); err != nil {
			return nil, err
		}
		if err := step.run(); err != nil {
			return nil, err
		}
	}
	vm.timeline.mark(MarkerCreated)
	return vm, nil
}

// Close gives back all that New took. A machine that runs is not closed: end
// the context of its Run first.
func (vm *VM) Close() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.running {
		return errRunning
	}
	var errs []error
	for _, c := range slices.Backward(vm.closers) {
		errs = append(errs, c())
	}
	vm.closers, vm.closed = nil, true
	return errors.Join(errs...)
}

func (vm *VM) onClose(f func() error) { vm.closers = append(vm.closers, f) }

// NeededCaps are the capabilities without which no machine can be made.
func NeededCaps() []kvm.Cap {
	return []kvm.Cap{
		kvm.CapIRQChip, kvm.CapIRQRouting, kvm.CapUserMemory, kvm.CapSetTSSAddr, kvm.CapExtCPUID, kvm.CapImmediateExit,
	}
}

func (vm *VM) openKVM() (err error) {
	if vm.sys, err = kvm.Open(vm.cfg.KVM); err != nil {
		return fmt.Errorf("%w: %w", ErrKVM, err)
	}
	vm.onClose(vm.sys.Close)
	for _, c := range NeededCaps() {
		has, err := vm.sys.CheckExtension(c)
		if err == nil && has == 0 {
			err = fmt.Errorf("%v is missing; a newer kernel on the host has it", c)
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrKVM, vm.cfg.KVM, err)
		}
	}
	return nil
}

func (vm *VM) mapRAM() (err error) {
	if vm.mem, err = memory.New(ramRanges(vm.cfg.Memory), vm.cfg.Backing.memory()); err == nil {
		vm.onClose(vm.mem.Close)
	}
	return err
}

func (vm *VM) createVM() (err error) {
	if vm.kvm, err = vm.sys.CreateVM(); err != nil {
		return fmt.Errorf("%w: %w", ErrKVM, err)
	}
	vm.onClose(vm.kvm.Close)
	return nil
}

func (vm *VM) plugRAM() error {
	for slot, r := range vm.mem.Regions() {
		if err := vm.kvm.SetMemoryRegion(kvm.MemoryRegion{Slot: uint32(slot), GPA: r.GPA, Size: r.Size, HVA: r.HVA()}); err != nil {
			return fmt.Errorf("%w: %w", ErrKVM, err)
		}
	}
	return nil
}

func (vm *VM) createIRQChip() error {
	// Intel's early processors run real mode and unpaged code with these two;
	// they must be set before the first vCPU.
	err := vm.kvm.SetIdentityMapAddr(identityMapBase)
	if err == nil {
		err = vm.kvm.SetTSSAddr(tssBase)
	}
	if err == nil {
		err = vm.kvm.CreateIRQChip()
	}
	vm.interrupts = &interruptTable{vm: vm.kvm}
	if err == nil {
		err = vm.interrupts.store()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKVM, err)
	}
	return nil
}

func (vm *VM) createBoard() (err error) {
	vm.console, vm.hvcWatch = watch(vm.cfg.Serial), watch(vm.cfg.Console)
	vm.board, err = newBoard(vm.cfg, wires{
		line:    vm.line,
		stop:    vm.stop,
		panic:   vm.guestPanics,
		marker:  vm.timeline.markGuest,
		console: vm.console,
		first:   func() { vm.timeline.mark(MarkerFirstByte) },
		log:     vm.log,
	})
	if err == nil {
		vm.onClose(func() error { vm.board.rtc.Close(); return nil })
	}
	return err
}

func (vm *VM) writeFirmware() error {
	c := describe(vm.cfg)
	t, err := acpi.Build(c)
	if err != nil {
		return err
	}
	if _, err := vm.mem.WriteAt(t.Data, int64(t.Base)); err != nil {
		return err
	}
	_, err = vm.mem.WriteAt(c.Power.ResetCode(), acpi.ResetVector)
	return err
}

func (vm *VM) loadKernel() (err error) {
	if _, err := vm.cfg.findKernel(vm.disks); err != nil {
		return err
	}
	_, vm.entry, err = load(vm.cfg, vm.mem)
	return err
}

func (vm *VM) createVCPUs() error {
	for i := range vm.cfg.CPUs {
		k, err := vm.kvm.CreateVCPU(i)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrKVM, err)
		}
		vm.onClose(k.Close)
		c := newVCPU(i, k)
		c.pio, c.mmio, c.ram = vm.board.pio, vm.board.mmio, vm.mem
		c.stop = vm.stop
		c.entering = func() { vm.firstRun.Do(vm.timeline.markFirstRun) }
		vm.vcpus = append(vm.vcpus, c)

		stats, err := k.Stats()
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrKVM, err)
		}
		vm.onClose(stats.Close)
		vm.counters = append(vm.counters, stats)
	}
	return nil
}

func (vm *VM) setRegisters() error {
	if err := vm.setCPUID(); err != nil {
		return err
	}
	for _, c := range vm.vcpus {
		if err := c.kvm.SetMSRs(firmwareMSRs); err != nil {
			return fmt.Errorf("%w: vCPU %d: %w", ErrKVM, c.id, err)
		}
	}
	// The others wait for the boot processor to start them, as KVM has it.
	if err := start(vm.vcpus[0].kvm, vm.entry); err != nil {
		return fmt.Errorf("%w: boot processor: %w", ErrKVM, err)
	}
	return nil
}

func (vm *VM) setCPUID() error {
	supported, err := vm.sys.SupportedCPUID()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKVM, err)
	}
	m := cpuid.Machine{CPUs: vm.cfg.CPUs}
	if khz, err := vm.vcpus[0].kvm.TSCKHz(); err == nil { // a TSC that is not constant has no frequency
		m.TSCkHz = uint32(khz)
	}
	if has, err := vm.sys.CheckExtension(kvm.CapTSCDeadlineTimer); err == nil {
		m.TSCDeadline = has != 0
	}
	table, err := cpuid.New(supported, vm.cfg.CPU.model(), m)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if top := pciHigh(vm.cfg.Memory) + pciHighSize; top > 1<<table.PhysicalBits() {
		return fmt.Errorf("%w: %d MiB of memory, with PCI's window behind it, end above the %d-bit addresses that KVM gives guests here; give less",
			ErrConfig, vm.cfg.Memory/mib, table.PhysicalBits())
	}
	for i, c := range vm.vcpus {
		if err := c.kvm.SetCPUID(table.For(i)); err != nil {
			return fmt.Errorf("%w: vCPU %d: %w", ErrKVM, i, err)
		}
	}
	return nil
}

// stop ends the run with r, unless something has ended it before.
func (vm *VM) stop(r Result) {
	select {
	case vm.outcome <- r:
	default:
	}
}

// guestPanics hears from the pvpanic device.
func (vm *VM) guestPanics(e pvpanic.Event) {
	if e&pvpanic.CrashLoaded != 0 {
		vm.crashOnce.Do(func() { vm.log.Info("the guest has panicked and its crash kernel takes over") })
		return
	}
	if e&pvpanic.Panicked != 0 {
		vm.panicOnce.Do(func() { close(vm.panicking) })
	}
	if e&pvpanic.Shutdown != 0 {
		vm.stop(Result{Outcome: PowerOff, Detail: "told by pvpanic"})
	}
}
