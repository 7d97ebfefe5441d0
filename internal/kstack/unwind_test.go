package kstack

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// stack is guest memory: words at addresses, and code that is all calls.
type stack map[uint64]uint64

func (s stack) read(gva uint64, p []byte) error {
	for i := range p {
		at := gva + uint64(i)
		word, ok := s[at&^7]
		switch {
		case at >= text && at < text+0x1_0000 || isModule(at):
			p[i] = 0xe8
		case !ok:
			return fmt.Errorf("%#x is not mapped", at)
		default:
			p[i] = byte(word >> (8 * (at & 7)))
		}
	}
	return nil
}

func (s stack) put(at uint64, words ...uint64) {
	for i, w := range words {
		s[at+8*uint64(i)] = w
	}
}

// pt puts registers as an interrupt has them saved.
func (s stack) pt(at uint64, bp, ip, cs, sp uint64) {
	s.put(at, make([]uint64, ptSize/8)...)
	s[at+ptBP], s[at+ptIP], s[at+ptCS], s[at+ptSP] = bp, ip, cs, sp
}

const (
	task = uint64(0xffff_c900_0000_4000)
	irq  = uint64(0xffff_c900_0010_4000)
)

func unwinderOf(t *testing.T, s stack, spans ...span) *unwinder {
	t.Helper()
	u := &unwinder{slide: 0, read: s.read, inKernel: func(ip uint64) bool { return ip >= text && ip < text+0x1_0000 }}
	if len(spans) > 0 {
		ips, entries := forms["6.4"].encode(orcAt, spans)
		var err error
		u.orc, err = newORC(ips, entries, orcAt)
		require.NoError(t, err)
	}
	return u
}

func ips(frames []frame) (all []uint64) {
	for _, f := range frames {
		all = append(all, f.ip)
	}
	return all
}

// TestThroughAnInterrupt: a handler on its own stack, the entry code, the task that it
// interrupted, up to its first function.
func TestThroughAnInterrupt(t *testing.T) {
	s := stack{}
	handler, switching, entryCode, loop, first := text+0x100, text+0x200, text+0x300, text+0x400, text+0x500
	s.put(irq, 0x1111, switching+9)  // the handler's saved BP, its return address
	s.put(irq+16, task+0x100)        // where the other stack is
	s.put(task+0x100-8, entryCode+5) // the return address there
	s.pt(task+0x100, task+0x308, loop+7, 0x10, task+0x300)
	s.put(task+0x308, 0, first+4)
	u := unwinderOf(t, s, spans(
		span{handler, pushed}, span{switching, entry{kind: call, spReg: regSPIndirect}}, span{entryCode, saved},
		span{loop, byBP}, span{first, ending},
	)...)
	frames, err := u.unwind(cpu{ip: handler + 3, sp: irq, bp: 0x1111})
	require.NoError(t, err)
	require.Equal(t, []uint64{switching + 9, entryCode + 5, loop + 7, first + 4}, ips(frames))
	require.Equal(t, []bool{false, false, true, false}, []bool{frames[0].exact, frames[1].exact, frames[2].exact, frames[3].exact})
}

func TestStacksThatEndOtherwise(t *testing.T) {
	f, g := text+0x100, text+0x200
	user := uint64(0x40_1000)
	for name, c := range map[string]struct {
		stack func(s stack)
		spans []span
		at    cpu
		want  []uint64
		err   string
		user  bool
	}{
		"a system call":                   {func(s stack) { s.put(task, g+5); s.pt(task+8, 0, user, 0x33, 0x7ffc_0000) }, []span{{f, function}, {g, saved}}, cpu{}, []uint64{g + 5, user}, "", true},
		"before registers were saved":     {func(s stack) { s.put(task+8, user, 0x33, 0x202, 0x7ffc_0000, 0x2b) }, []span{{f, cut}}, cpu{}, []uint64{user}, "", true},
		"by a register":                   {func(s stack) { s.put(task+0x40, g+5) }, []span{{f, entry{kind: call, spReg: regR10}}, {g, ending}}, cpu{r10: task + 0x48, rest: true}, []uint64{g + 5}, "", false},
		"by a lost register":              {func(s stack) { s.put(task, g+5) }, []span{{f, function}, {g, entry{kind: call, spReg: regR13}}}, cpu{}, []uint64{g + 5}, "lost", false},
		"through BP, indirectly":          {func(s stack) { s.put(task+0x50, task+0x90); s.put(task+0x88, g+5) }, []span{{f, entry{kind: call, spReg: regBPIndirect, spOffset: -16}}, {g, ending}}, cpu{bp: task + 0x60}, []uint64{g + 5}, "", false},
		"through BP, to a stack below":    {func(s stack) { s.put(task-0x8000, 0, g+5) }, []span{{f, byBP}, {g, ending}}, cpu{bp: task - 0x8000}, []uint64{g + 5}, "", false},
		"nothing is known":                {func(stack) {}, []span{{f, unknown}}, cpu{}, nil, "does not tell", false},
		"unmapped":                        {func(stack) {}, []span{{f, function}}, cpu{}, nil, "not mapped", false},
		"no return address":               {func(s stack) { s.put(task, 0x1234) }, []span{{f, function}}, cpu{}, nil, "no return address", false},
		"downwards":                       {func(s stack) { s.put(task-0x18, g+5) }, []span{{f, entry{kind: call, spReg: regSP, spOffset: -0x10}}}, cpu{}, nil, "not above", false},
		"in a circle":                     {func(s stack) { s.pt(task, task, f+1, 0x10, task) }, []span{{f, saved}}, cpu{}, slices.Repeat([]uint64{f + 1}, maxFrames), "more than 64", false},
		"a nil function":                  {func(s stack) { s.put(task, g+5) }, []span{{g, ending}}, cpu{ip: 1, rest: true}, []uint64{g + 5}, "", false},
		"a module":                        {func(s stack) { s.put(task+0x10, 0, g+5) }, []span{{g, ending}}, cpu{ip: 0xffffffffc0001000, bp: task + 0x10}, []uint64{g + 5}, "", false},
		"a module without frame pointers": {func(s stack) { s.put(task+0x10, 0, g+5) }, []span{{g, ending}}, cpu{ip: 0xffffffffc0001000, bp: 3}, nil, "no frame pointer", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := stack{}
			c.stack(s)
			at := c.at
			at.sp = task
			if at.ip == 0 {
				at.ip = f
			}
			if at.ip == 1 {
				at.ip = 0
			}
			frames, err := unwinderOf(t, s, spans(c.spans...)...).unwind(at)
			if c.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.err)
			}
			require.Equal(t, c.want, ips(frames))
			require.Equal(t, c.user, len(frames) > 0 && frames[len(frames)-1].user)
		})
	}
}

func TestFramePointers(t *testing.T) {
	s := stack{}
	f, g, h := text+0x100, text+0x200, text+0x300
	s.put(task+0x10, task+0x40|1, g+5)
	s.pt(task+0x40, task+0x200, h, 0x10, task+0x1f0)
	s.put(task+0x200, 0, 0)
	frames, err := unwinderOf(t, s).unwind(cpu{ip: f, sp: task, bp: task + 0x10})
	require.NoError(t, err)
	require.Equal(t, []uint64{g + 5, h}, ips(frames))

	for name, bp := range map[string]uint64{"below": task - 8, "odd": task + 3, "far": task + 1<<20, "unmapped": task + 0x800} {
		t.Run(name, func(t *testing.T) {
			frames, err := unwinderOf(t, s).unwind(cpu{ip: f, sp: task, bp: bp})
			require.Error(t, err)
			require.Empty(t, frames)
		})
	}
}

// FuzzUnwind: whatever the tables and the stack say, it ends.
func FuzzUnwind(f *testing.F) {
	for _, form := range forms {
		ips, entries := form.encode(orcAt, spans(span{text + 0x100, pushed}, span{text + 0x200, byBP}, span{text + 0x300, saved}, span{text + 0x400, ending}))
		var words []byte
		for _, w := range []uint64{task + 0x20, text + 0x205, 0, 0, task, text + 0x305, 0, 0} {
			words = binary.LittleEndian.AppendUint64(words, w)
		}
		f.Add(ips, entries, words, uint64(0x103), uint64(0x20))
	}
	f.Fuzz(func(t *testing.T, ips, entries, words []byte, ip, bp uint64) {
		orc, err := newORC(ips, entries, orcAt)
		if err != nil {
			require.ErrorIs(t, err, errORC)
			orc = nil
		}
		s := stack{}
		for i := 0; i+8 <= len(words) && i < 1<<12; i += 8 {
			s.put(task+uint64(i), binary.LittleEndian.Uint64(words[i:]))
		}
		u := unwinderOf(t, s)
		u.orc = orc
		frames, err := u.unwind(cpu{ip: text + ip, sp: task, bp: task + bp, rest: true})
		require.LessOrEqual(t, len(frames), maxFrames)
		require.False(t, len(frames) == maxFrames && err == nil && !frames[maxFrames-1].user)
	})
}
