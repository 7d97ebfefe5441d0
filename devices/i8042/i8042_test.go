package i8042

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// line remembers what a controller does to an interrupt.
type line struct {
	high  bool
	rises int
}

func (l *line) Set(high bool) {
	if high {
		l.rises++
	}
	l.high = high
}

// pc is a controller with what it is connected to.
type pc struct {
	*Controller
	keyboard, aux line
	resets        int
}

func newPC() *pc {
	p := new(pc)
	p.Controller = New(Config{Keyboard: &p.keyboard, Aux: &p.aux, Reset: func() { p.resets++ }})
	return p
}

func (p *pc) status() byte {
	var b [1]byte
	p.Command().Load(0, b[:])
	return b[0]
}

func (p *pc) read() byte {
	var b [1]byte
	p.Data().Load(0, b[:])
	return b[0]
}

func (p *pc) command(v byte) { p.Command().Store(0, []byte{v}) }
func (p *pc) write(v byte)   { p.Data().Store(0, []byte{v}) }

// ask sends a command and its parameters, and reads the answer, as
// __i8042_command does.
func (p *pc) ask(t *testing.T, cmd byte, params ...byte) byte {
	t.Helper()
	p.command(cmd)
	for _, v := range params {
		p.write(v)
	}
	require.NotZero(t, p.status()&statusFull, "no answer to command %#x", cmd)
	return p.read()
}

func (p *pc) ctr(t *testing.T) byte { return p.ask(t, cmdReadRAM) }

func (p *pc) setCTR(v byte) {
	p.command(cmdWriteRAM)
	p.write(v)
}

// TestLinuxProbe takes the steps of drivers/input/serio/i8042.c.
func TestLinuxProbe(t *testing.T) {
	p := newPC()

	// i8042_flush, i8042_controller_selftest, i8042_controller_init.
	require.Zero(t, p.status()&statusFull, "something to flush")
	require.EqualValues(t, 0x55, p.ask(t, cmdSelfTest))
	ctr := p.ctr(t)
	require.Equal(t, ctr, p.ctr(t))
	require.NotZero(t, p.status()&statusNoLock)
	require.NotZero(t, ctr&ctrTranslate, "untranslated keyboards are a special case")
	ctr = ctr&^ctrKeyboardInt | ctrKeyboardDisable
	p.setCTR(ctr)
	require.Equal(t, ctr, p.ctr(t))

	// i8042_check_aux.
	p.command(cmdAuxLoop)
	p.write(0x5a)
	require.NotZero(t, p.status()&statusAux)
	require.EqualValues(t, 0x5a, p.read())
	require.Zero(t, p.ask(t, cmdAuxTest))
	p.command(cmdAuxDisable)
	require.NotZero(t, p.ctr(t)&ctrAuxDisable)
	p.command(cmdAuxEnable)
	require.Zero(t, p.ctr(t)&ctrAuxDisable)
	require.Zero(t, p.keyboard.rises+p.aux.rises)
	p.setCTR(ctr&^ctrAuxDisable | ctrAuxInt)
	p.command(cmdAuxLoop)
	p.write(0xa5)
	require.True(t, p.aux.high, "aux_test_irq")
	require.NotZero(t, p.status()&statusAux)
	require.EqualValues(t, 0xa5, p.read())
	require.False(t, p.aux.high)

	// i8042_set_mux_mode: no multiplexer, for it would change the third byte.
	for _, v := range []byte{0xf0, 0x56, 0xa4} {
		require.Equal(t, v, p.ask(t, cmdAuxLoop, v))
	}

	// i8042_enable_kbd_port; atkbd asks for the id and hears that nobody is there.
	p.setCTR(ctr&^ctrKeyboardDisable | ctrKeyboardInt)
	p.write(0xf2)
	require.True(t, p.keyboard.high)
	require.Equal(t, byte(statusFull|statusTimeout), p.status()&(statusFull|statusTimeout|statusAux))
	require.EqualValues(t, 0xfe, p.read())
	require.False(t, p.keyboard.high)
	require.Zero(t, p.status()&(statusFull|statusTimeout))

	// i8042_aux_write, from psmouse.
	p.setCTR(ctr | ctrAuxInt)
	p.command(cmdAuxSend)
	p.write(0xf2)
	require.True(t, p.aux.high)
	require.Equal(t, byte(statusFull|statusTimeout|statusAux), p.status()&(statusFull|statusTimeout|statusAux))
	require.EqualValues(t, 0xfe, p.read())
	require.Zero(t, p.resets)
}

func TestReset(t *testing.T) {
	for _, tt := range []struct {
		name   string
		do     func(*pc)
		resets int
	}{
		{"pulse", func(p *pc) { p.command(0xfe) }, 1},
		{"pulse all", func(p *pc) { p.command(0xf0) }, 1},
		{"pulse none", func(p *pc) { p.command(0xff) }, 0},
		{"pulse another", func(p *pc) { p.command(0xfd) }, 0},
		{"output port", func(p *pc) { p.command(cmdWriteOutputPort); p.write(0xfe) }, 1},
		{"output port, not the reset line", func(p *pc) { p.command(cmdWriteOutputPort); p.write(0xdf) }, 0},
		{"to the keyboard", func(p *pc) { p.write(0xfe) }, 0},
		{"a command cuts off another", func(p *pc) { p.command(cmdWriteOutputPort); p.command(cmdSelfTest); p.write(0) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPC()
			tt.do(p)
			require.Equal(t, tt.resets, p.resets)
		})
	}
}

func TestCommands(t *testing.T) {
	p := newPC()
	require.Zero(t, p.ask(t, cmdKeyboardTest))
	require.EqualValues(t, 0x80, p.ask(t, cmdReadInputPort))
	require.EqualValues(t, 0xcf, p.ask(t, cmdReadOutputPort))
	p.command(cmdWriteOutputPort)
	p.write(0xdd) // A20 off
	require.EqualValues(t, 0xcd, p.ask(t, cmdReadOutputPort), "bits 4 and 5 show the interrupts")
	p.command(cmdKeyboardDisable)
	require.NotZero(t, p.ctr(t)&ctrKeyboardDisable)
	p.command(cmdKeyboardEnable)
	require.Zero(t, p.ctr(t)&ctrKeyboardDisable)
	p.command(cmdWriteRAM + 0x1f)
	p.write(0x77)
	require.EqualValues(t, 0x77, p.ask(t, cmdReadRAM+0x1f))
	p.command(0x00) // nobody's
	require.Zero(t, p.status()&statusFull)
	require.NotZero(t, p.status()&statusCommand)
	p.write(0xed)
	require.Zero(t, p.status()&statusCommand)
}

func TestInterruptForEachByte(t *testing.T) {
	p := newPC()
	p.setCTR(ctrKeyboardInt | ctrAuxInt)
	p.command(cmdKeyboardLoop)
	p.write(1)
	p.command(cmdAuxLoop)
	p.write(2)
	p.command(cmdKeyboardLoop)
	p.write(3)
	require.EqualValues(t, outKeyboardInt, p.regs.interrupts())
	require.Equal(t, 1, p.keyboard.rises)
	require.Zero(t, p.aux.rises, "not before it can be read")
	require.EqualValues(t, 1, p.read())
	require.Equal(t, 1, p.aux.rises)
	require.EqualValues(t, 2, p.read())
	require.Equal(t, 2, p.keyboard.rises)
	require.EqualValues(t, 3, p.read())
	require.EqualValues(t, 3, p.read(), "an empty port shows the last byte")
	require.False(t, p.keyboard.high || p.aux.high)

	p.write(1) // two bytes of one kind: an edge for each
	p.write(2)
	rises := p.keyboard.rises
	p.read()
	require.Equal(t, rises+1, p.keyboard.rises)
}

// A guest that never reads must not make Linux, which may follow by kexec,
// take the controller for absent.
func TestQueueIsBounded(t *testing.T) {
	p := newPC()
	for range 100 {
		p.write(0xff)
	}
	n := 0
	for ; p.status()&statusFull != 0; n++ {
		p.read()
	}
	require.Equal(t, 16, n)
}

func TestWidthsAndOffsets(t *testing.T) {
	p := newPC()
	b := []byte{0, 0}
	p.Command().Load(0, b)
	require.Equal(t, []byte{p.status(), 0xff}, b)
	p.Data().Load(1, b)
	require.Equal(t, []byte{0xff, 0xff}, b)
	p.Command().Store(1, []byte{0xfe})
	p.Command().Store(0, nil)
	require.Zero(t, p.resets)
	p.Command().Store(0, []byte{0xfe, 0xfe})
	require.Equal(t, 1, p.resets)
}

func TestNothingAttached(*testing.T) {
	k := New(Config{})
	k.Command().Store(0, []byte{cmdWriteRAM})
	k.Data().Store(0, []byte{ctrKeyboardInt | ctrAuxInt})
	k.Data().Store(0, []byte{0xff})
	k.Command().Store(0, []byte{0xfe})
}

func TestConcurrentUse(*testing.T) {
	k := New(Config{Keyboard: &line{}, Aux: &line{}})
	var vcpus sync.WaitGroup
	for seed := range uint64(4) {
		vcpus.Go(func() {
			rnd := rand.New(rand.NewPCG(2, seed))
			for range 2000 {
				port, p := k.Data(), []byte{byte(rnd.Uint32())}
				if rnd.IntN(2) == 0 {
					port = k.Command()
				}
				if rnd.IntN(2) == 0 {
					port.Load(0, p)
				} else {
					port.Store(0, p)
				}
			}
		})
	}
	vcpus.Wait()
}

// FuzzPorts does what its input says, two bytes a step: the port, the direction
// and the width, then the value.
func FuzzPorts(f *testing.F) {
	f.Add([]byte{3, cmdSelfTest, 0, 0, 3, cmdReadRAM, 0, 0, 3, cmdWriteRAM, 1, 3, 1, 0xf2, 2, 0, 0, 0})
	f.Add([]byte{3, cmdWriteRAM, 1, 3, 3, cmdAuxLoop, 1, 0xa5, 2, 0, 0, 0, 3, cmdAuxSend, 1, 0xff, 0, 0})
	f.Add([]byte{3, cmdWriteOutputPort, 1, 0xfe, 3, cmdReadOutputPort, 0, 0, 3, 0xfe, 7, 0, 0x0d, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		p := newPC()
		for ; len(steps) >= 2; steps = steps[2:] {
			port := p.Data()
			if steps[0]&2 != 0 {
				port = p.Command()
			}
			off := uint64(steps[0] >> 4)
			b := make([]byte, 1<<(steps[0]>>2&3))
			resets := p.resets
			if steps[0]&1 == 0 {
				port.Load(off, b)
			} else {
				b[0] = steps[1]
				port.Store(off, b)
			}
			require.LessOrEqual(t, p.resets, resets+1)
			s := &p.regs
			require.LessOrEqual(t, s.queued, queueSize)
			require.Equal(t, s.interrupts()&outKeyboardInt != 0, p.keyboard.high)
			require.Equal(t, s.interrupts()&outAuxInt != 0, p.aux.high)
			require.False(t, p.keyboard.high && p.aux.high)
		}
	})
}
