package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm"
)

// A Probe is what a tiny guest in long mode, ring 0, has shown: whether this
// KVM runs a kernel's instructions on the processor, or emulates them one by
// one. An emulator knows only some of them, so no stock kernel boots there.
type Probe struct {
	Native bool `json:"native"`
	// InstructionNS is the time that one took in a loop, in nanoseconds, from the
	// best of a few rounds.
	InstructionNS float64 `json:"instruction_ns"`
	// Stuck says at what the guest could not go on; empty where it could.
	Stuck string `json:"stuck,omitempty"`
	// Took is how long the whole probe took.
	Took time.Duration `json:"took_ns"`
}

// The loop of the probe. A processor needs a nanosecond or less for an
// instruction, QEMU's software CPU some tens, KVM's emulator about 1,000. A
// round takes some 3 ms where emulated and disappears in the cost of KVM_RUN
// where not: that cost is measured by loops of one turn, and taken off.
const (
	turns           = 1500
	perTurn         = 2 // instructions
	rounds          = 3
	emulatedAboveNS = 200
)

// Where the guest has what, as guest-physical addresses.
const (
	pml4Addr  = 0x1000
	pdptAddr  = 0x2000
	pdAddr    = 0x3000
	codeAddr  = 0x4000
	dataAddr  = 0x5000
	guestSize = 0x6000
)

var (
	// wideSwap is what KVM's emulator lacks and every 64-bit Linux uses early
	// (the slab allocator's freelists).
	wideSwap = []byte{
		0xf0, 0x48, 0x0f, 0xc7, 0x0f, // lock cmpxchg16b [rdi]
		0xf4, // hlt
	}
	countdown = []byte{
		0xff, 0xc9, // dec ecx
		0x75, 0xfc, // jnz back
		0xf4, // hlt
	}
)

// ProbeRing0 runs the probe guest. An error means that it could not be built,
// which says nothing about the processor.
func ProbeRing0(sys *kvm.System) (p Probe, err error) {
	start := time.Now()
	defer func() { p.Took = time.Since(start) }()
	runtime.LockOSThread() // KVM wants a vCPU to stay on its thread
	defer runtime.UnlockOSThread()

	g, err := newProbeGuest(sys)
	if err != nil {
		return p, fmt.Errorf("probe guest: %w", err)
	}
	defer func() { err = errors.Join(err, g.close()) }()

	if g.hasWideSwap {
		_, stuck, err := g.run(wideSwap, 0)
		if err != nil {
			return p, err
		}
		if stuck != "" {
			p.Stuck = "cmpxchg16b: " + stuck
		}
	}
	var short, long time.Duration
	for i := range rounds {
		for _, loop := range []struct {
			best  *time.Duration
			turns uint64
		}{{&short, 1}, {&long, turns}} {
			took, stuck, err := g.run(countdown, loop.turns)
			if err != nil || stuck != "" {
				p.Stuck = stuck
				return p, err
			}
			if i == 0 || took < *loop.best {
				*loop.best = took
			}
		}
		if p.Stuck != "" {
			break // it is emulated, and one round tells how slowly
		}
	}
	p.InstructionNS = max(0, float64(long-short)/((turns-1)*perTurn))
	p.Native = p.Stuck == "" && p.InstructionNS < emulatedAboveNS
	return p, nil
}

func (p Probe) String() string {
	switch {
	case p.Native:
		return fmt.Sprintf("runs on the processor, %.1f ns an instruction", p.InstructionNS)
	case p.Stuck != "":
		return fmt.Sprintf("is emulated, %.0f ns an instruction, and gets stuck at %s", p.InstructionNS, p.Stuck)
	default:
		return fmt.Sprintf("is emulated, %.0f ns an instruction", p.InstructionNS)
	}
}

// A probeGuest is a VM with a few pages of memory and one vCPU.
type probeGuest struct {
	vm          *kvm.VM
	cpu         *kvm.VCPU
	mem         []byte
	hasWideSwap bool
}

func newProbeGuest(sys *kvm.System) (g *probeGuest, err error) {
	g = &probeGuest{}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if g.vm, err = sys.CreateVM(); err != nil {
		return g, err
	}
	g.mem, err = unix.Mmap(-1, 0, guestSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return g, fmt.Errorf("map its memory: %w", err)
	}
	// One 2 MiB page at 0 is mapped to itself (Intel SDM vol. 3 §4.5).
	const present, writable, large = 1 << 0, 1 << 1, 1 << 7
	binary.LittleEndian.PutUint64(g.mem[pml4Addr:], pdptAddr|present|writable)
	binary.LittleEndian.PutUint64(g.mem[pdptAddr:], pdAddr|present|writable)
	binary.LittleEndian.PutUint64(g.mem[pdAddr:], 0|present|writable|large)
	err = g.vm.SetMemoryRegion(kvm.MemoryRegion{Size: guestSize, HVA: addressOf(g.mem)})
	if err != nil {
		return g, err
	}
	if g.cpu, err = g.vm.CreateVCPU(0); err != nil {
		return g, err
	}
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		return g, err
	}
	for _, e := range cpuid {
		if e.Function == 1 {
			g.hasWideSwap = e.ECX&(1<<13) != 0 // CMPXCHG16B (Intel SDM vol. 2, CPUID)
		}
	}
	return g, g.cpu.SetCPUID(cpuid)
}

// run runs code from its first byte to its HLT, with ECX = turns. stuck says why it did not get there.
func (g *probeGuest) run(code []byte, turns uint64) (took time.Duration, stuck string, err error) {
	copy(g.mem[codeAddr:], code)
	sregs, err := g.cpu.Sregs()
	if err != nil {
		return 0, "", err
	}
	longMode(&sregs)
	if err := g.cpu.SetSregs(&sregs); err != nil {
		return 0, "", err
	}
	regs := kvm.Regs{RIP: codeAddr, RFLAGS: 1 << 1, RDI: dataAddr, RCX: turns}
	if err := g.cpu.SetRegs(&regs); err != nil {
		return 0, "", err
	}
	for {
		start := time.Now()
		exit, err := g.cpu.Run()
		took = time.Since(start)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue // took gets shorter, by far not to what it means to be native
		case err != nil:
			return 0, "", err
		}
		switch e := exit.(type) {
		case *kvm.HaltExit:
			return took, "", nil
		case *kvm.InternalErrorExit:
			return took, fmt.Sprintf("KVM's internal error, suberror %d", e.Suberror), nil
		default:
			return took, e.Reason(), nil
		}
	}
}

// longMode sets 64-bit mode with flat segments, in ring 0 (Intel SDM vol. 3 §9.8.5).
func longMode(s *kvm.Sregs) {
	const (
		cr0  = 1<<0 | 1<<4 | 1<<5 | 1<<31 // PE, ET, NE, PG
		cr4  = 1 << 5                     // PAE
		efer = 1<<8 | 1<<10               // LME, LMA
	)
	s.CR0, s.CR3, s.CR4, s.EFER = cr0, pml4Addr, cr4, efer
	data := kvm.Segment{Limit: 0xffffffff, Selector: 16, Typ: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.CS = kvm.Segment{Limit: 0xffffffff, Selector: 8, Typ: 11, Present: 1, S: 1, L: 1, G: 1}
}

func (g *probeGuest) close() error {
	var errs []error
	if g.cpu != nil {
		errs = append(errs, g.cpu.Close())
	}
	if g.vm != nil {
		errs = append(errs, g.vm.Close())
	}
	if g.mem != nil {
		errs = append(errs, unix.Munmap(g.mem))
	}
	return errors.Join(errs...)
}
