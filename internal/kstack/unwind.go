package kstack

import (
	"errors"
	"fmt"
)

const (
	// maxFrames bounds a backtrace.
	maxFrames = 64
	// maxFrame bounds a frame that is found by a frame pointer, in bytes: no kernel's
	// stack is larger.
	maxFrame = 32 << 10
)

// A frame is a place in the kernel that has called another one.
type frame struct {
	ip uint64
	// exact says that ip is an instruction that was about to run, and not the one
	// behind a call.
	exact bool
	// guess says that the frame was found by what looks like a frame pointer, where
	// the kernel has no ORC.
	guess bool
	user  bool // a program was interrupted: the kernel has been left
}

// A cpu is the registers that frames are found by.
type cpu struct {
	ip, sp, bp uint64
	// These are known for the first frame and for one that was interrupted.
	ax, dx, di, r10, r13 uint64
	rest                 bool
}

// errEnd is the clean end of a stack.
var errEnd = errors.New("the stack's end")

// An unwinder walks one stack.
type unwinder struct {
	orc   *table // nil without
	slide uint64 // how far the kernel is from where it was linked
	// read fills p from guest virtual memory.
	read func(gva uint64, p []byte) error
	// inKernel tells addresses of the kernel's own code.
	inKernel func(ip uint64) bool
}

// unwind gives the callers of a place, the innermost first, and why there are no more;
// nil where the stack ends.
func (u *unwinder) unwind(at cpu) (frames []frame, err error) {
	last := frame{ip: at.ip, exact: true}
	for len(frames) < maxFrames {
		next, err := u.step(&at, last, len(frames) == 0)
		if errors.Is(err, errEnd) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		frames = append(frames, next)
		if next.user {
			return frames, nil
		}
		last = next
	}
	return frames, fmt.Errorf("it has more than %d frames", maxFrames)
}

// step goes to the frame that has called last.
func (u *unwinder) step(at *cpu, last frame, first bool) (frame, error) {
	if u.orc == nil {
		return u.byFramePointer(at, false)
	}
	ip := last.ip
	if !last.exact {
		ip-- // a call may be its function's last instruction
	}
	if first && !u.isText(ip) {
		// As after a call through a nil pointer: only the return address is there.
		return u.byEntry(at, entry{kind: call, spReg: regSP, spOffset: 8}, true)
	}
	e, ok := u.orc.find(ip - u.slide)
	if !ok || !u.inKernel(ip) {
		return u.byFramePointer(at, true)
	}
	return u.byEntry(at, e, false)
}

func (u *unwinder) byEntry(at *cpu, e entry, guess bool) (frame, error) {
	switch e.kind {
	case undefined:
		return frame{}, errors.New("the kernel's ORC does not tell of this place")
	case end:
		return frame{}, errEnd
	}
	sp, err := u.previousSP(at, e)
	if err != nil {
		return frame{}, err
	}
	switch e.kind {
	case regs:
		return u.registers(at, sp)
	case iret:
		return u.interrupted(at, sp)
	}
	// The stack grows down. Where code has taken another one, it does not count from SP.
	if e.spReg == regSP && sp <= at.sp {
		return frame{}, fmt.Errorf("its frame at %#x is not above %#x", sp, at.sp)
	}
	ip, err := u.word(sp - 8)
	if err != nil {
		return frame{}, err
	}
	switch e.bpReg {
	case regPrevSP:
		at.bp, err = u.word(sp + signed(e.bpOffs))
	case regBP:
		at.bp, err = u.word(at.bp + signed(e.bpOffs))
	}
	if err != nil {
		return frame{}, err
	}
	if !u.isText(ip) || guess && !u.follows(ip) {
		return frame{}, fmt.Errorf("%#x at %#x is no return address", ip, sp-8)
	}
	at.ip, at.sp, at.rest = ip, sp, false
	return frame{ip: ip, exact: e.signal, guess: guess}, nil
}

// previousSP is where SP was before the call, or where registers were saved.
func (u *unwinder) previousSP(at *cpu, e entry) (uint64, error) {
	offset := signed(e.spOffset)
	switch e.spReg {
	case regSP:
		return at.sp + offset, nil
	case regBP:
		return at.bp + offset, nil
	case regSPIndirect:
		sp, err := u.word(at.sp)
		return sp + offset, err
	case regBPIndirect:
		return u.word(at.bp + offset)
	}
	if !at.rest {
		return 0, errors.New("its frame is told by a register whose value is lost")
	}
	switch e.spReg {
	case regAX:
		return at.ax, nil
	case regDX:
		return at.dx, nil
	case regDI:
		return at.di, nil
	case regR10:
		return at.r10, nil
	case regR13:
		return at.r13, nil
	}
	return 0, errors.New("its frame is told by a register that husk does not know")
}

// The layout of struct pt_regs, in bytes (kernel arch/x86/include/asm/ptrace.h).
const (
	ptR13, ptBP, ptR10, ptAX, ptDX, ptDI = 16, 32, 56, 80, 96, 112
	ptIP, ptCS, ptSP                     = 128, 136, 152
	ptSize                               = 168
)

// registers goes on where an interrupt, an exception or a system call came from.
func (u *unwinder) registers(at *cpu, pt uint64) (frame, error) {
	b := make([]byte, ptSize)
	if err := u.read(pt, b); err != nil {
		return frame{}, err
	}
	at.bp, at.ax, at.dx, at.di = le.Uint64(b[ptBP:]), le.Uint64(b[ptAX:]), le.Uint64(b[ptDX:]), le.Uint64(b[ptDI:])
	at.r10, at.r13, at.rest = le.Uint64(b[ptR10:]), le.Uint64(b[ptR13:]), true
	return u.resume(at, b[ptIP:])
}

// interrupted is registers where only the processor's part has been saved yet: what
// else was in the registers is still there.
func (u *unwinder) interrupted(at *cpu, sp uint64) (frame, error) {
	b := make([]byte, ptSize-ptIP)
	if err := u.read(sp, b); err != nil {
		return frame{}, err
	}
	return u.resume(at, b)
}

func (u *unwinder) resume(at *cpu, b []byte) (frame, error) {
	at.ip, at.sp = le.Uint64(b), le.Uint64(b[ptSP-ptIP:])
	if le.Uint16(b[ptCS-ptIP:])&3 == 3 {
		return frame{ip: at.ip, exact: true, user: true}, nil
	}
	if !u.isText(at.ip) {
		return frame{}, fmt.Errorf("what was interrupted at %#x is no code", at.ip)
	}
	return frame{ip: at.ip, exact: true}, nil
}

// byFramePointer takes BP for the address of the caller's BP and of the return address
// above it, if all of that looks right. An odd one leads to saved registers (kernel
// arch/x86/include/asm/frame.h, ENCODE_FRAME_POINTER).
func (u *unwinder) byFramePointer(at *cpu, guess bool) (frame, error) {
	bp := at.bp
	if !guess && bp&7 == 1 && bp-at.sp < maxFrame {
		return u.registers(at, bp-1)
	}
	if bp&7 != 0 || bp < at.sp || bp-at.sp > maxFrame {
		return frame{}, fmt.Errorf("%#x is no frame pointer", bp)
	}
	next, err := u.word(bp)
	if err != nil {
		return frame{}, err
	}
	ip, err := u.word(bp + 8)
	if err != nil {
		return frame{}, err
	}
	if ip == 0 && next == 0 {
		return frame{}, errEnd
	}
	if !u.isText(ip) || !u.follows(ip) {
		return frame{}, fmt.Errorf("%#x at %#x is no return address", ip, bp+8)
	}
	*at = cpu{ip: ip, sp: bp + 16, bp: next}
	return frame{ip: ip, guess: guess}, nil
}

// follows tells whether there is a call before ip: relative (e8), or through a register
// or memory (ff /2, of two to seven bytes).
func (u *unwinder) follows(ip uint64) bool {
	b := make([]byte, 7)
	if u.read(ip-7, b) != nil {
		return false
	}
	for i := range 6 {
		if b[i] == 0xff && b[i+1]&0x38 == 0x10 {
			return true
		}
	}
	return b[2] == 0xe8
}

// isText tells addresses of code, of the kernel's and of its modules'.
func (u *unwinder) isText(ip uint64) bool { return u.inKernel(ip) || isModule(ip) }

// Where modules and programs of BPF are, in kernels with KASLR or without (kernel
// Documentation/arch/x86/x86_64/mm.rst); a kernel with KASLR may reach beyond the start.
const (
	modulesStart = 0xffff_ffff_a000_0000
	modulesEnd   = 0xffff_ffff_ff00_0000
)

// isModule tells addresses of modules, if they are not the kernel's own.
func isModule(ip uint64) bool { return ip >= modulesStart && ip < modulesEnd }

func (u *unwinder) word(gva uint64) (uint64, error) {
	b := make([]byte, 8)
	if err := u.read(gva, b); err != nil {
		return 0, err
	}
	return le.Uint64(b), nil
}

func signed(offset int16) uint64 { return uint64(int64(offset)) }
