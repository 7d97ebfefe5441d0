package serial

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRegisters does what its input says, three bytes a step: loads and stores
// of any width at any offset, input and breaks between them.
func FuzzRegisters(f *testing.F) {
	f.Add([]byte{0x12, 0, 0x07, 0x14, 0, 0x0b, 0x11, 0, 0x0f, 0x20, 0, 'a', 0x02, 0, 0, 0x05, 0, 0, 0, 0, 0})
	f.Add([]byte{0x14, 0, 0x1b, 0x10, 0, 'x', 0x10, 0, 'y', 0x05, 0, 0, 0, 0, 0, 0x06, 0, 0, 0x14, 0, 0})
	f.Add([]byte{0x13, 0, 0x80, 0x10, 0, 1, 0x11, 0, 0, 0x13, 0, 3, 0x10, 3, 'x', 0x00, 3, 0})
	f.Add([]byte{0x14, 0, 2, 0x30, 0, 0, 0x11, 0, 4, 0x02, 0, 0, 0x05, 0, 0, 0, 0, 0, 0x02, 0, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var l line
		u := New(Config{Line: &l})
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		for ; len(steps) >= 3; steps = steps[3:] {
			off := uint64(steps[0] & 0xf)
			width := 1 << (steps[1] & 3)
			switch steps[0] >> 4 & 3 {
			case 0:
				u.Load(off, make([]byte, width))
			case 1:
				p := make([]byte, width)
				for i := range p {
					p[i] = steps[2] + byte(i)
				}
				u.Store(off, p)
			case 2:
				overrun := u.regs.errors & lsrOE
				n, err := u.Input(ended, make([]byte, steps[2]))
				require.LessOrEqual(t, n, fifoSize)
				require.Equal(t, n == int(steps[2]), err == nil)
				require.Equal(t, overrun, u.regs.errors&lsrOE, "input overran the receiver")
			case 3:
				u.Break(ended) //nolint:errcheck // there may be no room
			}
			s := &u.regs
			require.LessOrEqual(t, s.rx.n, s.depth())
			require.Equal(t, s.mcr&(mcrOUT2|mcrLoop) == mcrOUT2 && s.interrupt() != iirNone, l.high)
			require.Zero(t, s.ier&^ierMask)
			require.Zero(t, s.mcr&^mcrMask)
		}
		require.NoError(t, u.Serve(ended))
		require.Equal(t, outputSize, u.output.room())
	})
}
