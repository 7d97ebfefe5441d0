package serial

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
)

var _ devices.Device = (*UART)(nil)

// give sends input that must fit at once.
func give(t *testing.T, u *UART, p string) {
	t.Helper()
	n, err := u.Input(t.Context(), []byte(p))
	require.NoError(t, err)
	require.Equal(t, len(p), n)
}

// tryGive returns how much of p the guest has room for.
func tryGive(u *UART, p string) int {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n, _ := u.Input(ctx, []byte(p))
	return n
}

func read(u *UART) string {
	var s []byte
	for get(u, regLSR)&lsrDR != 0 {
		s = append(s, get(u, regData))
	}
	return string(s)
}

func TestReceiveTriggers(t *testing.T) {
	for bits, level := range []int{1, 4, 8, 14} {
		u := New(Config{})
		open(u, byte(bits), ierRDA)
		for i := 1; i <= fifoSize; i++ {
			require.EqualValues(t, i > 1, get(u, regIIR)&iirNone == 0)
			give(t, u, "x")
			want := byte(iirRDA)
			if i < level {
				want = iirTimeout
			}
			require.Equal(t, want|iirFIFO, get(u, regIIR), "%d bytes, trigger %d", i, level)
		}
		require.Zero(t, tryGive(u, "x"), "a full FIFO takes no more")
		require.Zero(t, get(u, regLSR)&lsrOE)
	}
}

func TestReceiveWithoutFIFO(t *testing.T) {
	var l line
	u := New(Config{Line: &l})
	put(u, regMCR, mcrRTS|mcrOUT2)
	put(u, regIER, ierRDA)
	require.Equal(t, 1, tryGive(u, "abc"))
	require.True(t, l.high)
	require.EqualValues(t, iirRDA, get(u, regIIR))
	require.EqualValues(t, 'a', get(u, regData))
	require.False(t, l.high)
	require.EqualValues(t, 'a', get(u, regData), "an empty receiver shows the last byte")
}

func TestFIFOIsCleared(t *testing.T) {
	for name, fcr := range map[string]byte{"by its bit": fcrEnable | fcrClearRx, "switched off": 0} {
		t.Run(name, func(t *testing.T) {
			u := New(Config{})
			open(u, 0, 0)
			give(t, u, "abc")
			put(u, regFCR, fcr)
			require.Empty(t, read(u))
		})
	}
	u := New(Config{})
	open(u, 0, 0)
	give(t, u, "abc")
	put(u, regFCR, fcrEnable)
	require.Equal(t, "abc", read(u), "not cleared when it stays on")
}

func TestInterruptPriorities(t *testing.T) {
	var l line
	u := New(Config{Line: &l})
	open(u, 0, 0)
	require.NoError(t, u.Break(t.Context()))
	put(u, regMCR, mcrRTS|mcrOUT2|mcrLoop) // changes all modem inputs but CTS
	put(u, regMCR, mcrRTS|mcrOUT2)
	put(u, regIER, ierMask)
	require.True(t, l.high)

	id := func() byte { return get(u, regIIR) &^ iirFIFO }
	require.EqualValues(t, iirRLS, id())
	require.EqualValues(t, iirRLS, id(), "reading IIR clears THRE only")
	require.EqualValues(t, lsrBI|lsrDR|lsrFIFOE|lsrTHRE|lsrTEMT, get(u, regLSR))
	require.EqualValues(t, iirRDA, id())
	require.Zero(t, get(u, regData), "a break comes with a NUL")
	require.EqualValues(t, iirTHRE, id())
	require.EqualValues(t, iirMSI, id())
	require.True(t, l.high)
	require.NotZero(t, get(u, regMSR)&msrDeltas)
	require.EqualValues(t, iirNone, id())
	require.False(t, l.high)
	require.EqualValues(t, msrCTS|msrDSR|msrDCD, get(u, regMSR), "reading MSR clears the changes")
}

func TestOUT2GatesTheLine(t *testing.T) {
	for name, tt := range map[string]struct {
		mcr  byte
		high bool
	}{
		"off":         {mcrDTR | mcrRTS, false},
		"on":          {mcrOUT2, true},
		"in loopback": {mcrOUT2 | mcrLoop, false},
	} {
		t.Run(name, func(t *testing.T) {
			var l line
			u := New(Config{Line: &l})
			put(u, regMCR, tt.mcr)
			put(u, regIER, ierTHRE)
			require.Equal(t, tt.high, l.high)
			require.EqualValues(t, iirTHRE, get(u, regIIR), "IIR shows it all the same")
		})
	}
}

func TestErrorsBelongToTheirByte(t *testing.T) {
	u := New(Config{})
	open(u, 0, ierRLS)
	give(t, u, "a")
	require.NoError(t, u.Break(t.Context()))
	give(t, u, "b")
	require.EqualValues(t, lsrDR|lsrFIFOE, get(u, regLSR)&(lsrDR|lsrErrors|lsrFIFOE), "the break is not first")
	require.EqualValues(t, iirNone|iirFIFO, get(u, regIIR))
	get(u, regData)
	require.EqualValues(t, iirRLS|iirFIFO, get(u, regIIR))
	require.NotZero(t, get(u, regLSR)&lsrBI)
	require.Zero(t, get(u, regLSR)&(lsrErrors|lsrFIFOE), "reading LSR clears errors")
	require.Equal(t, "\x00b", read(u))
}

func TestLoopback(t *testing.T) {
	t.Run("data stays inside", func(t *testing.T) {
		u := New(Config{})
		open(u, 0, 0)
		put(u, regMCR, mcrLoop|mcrRTS)
		put(u, regData, 'x')
		require.Zero(t, tryGive(u, "y"), "the receiver is off the line")
		require.Equal(t, "x", read(u))
		require.Equal(t, outputSize, u.output.room())
	})
	t.Run("overrun without FIFO loses the old byte", func(t *testing.T) {
		u := New(Config{})
		put(u, regMCR, mcrLoop)
		put(u, regData, 'x')
		put(u, regData, 'y')
		require.EqualValues(t, lsrOE|lsrDR, get(u, regLSR)&(lsrOE|lsrDR))
		require.Equal(t, "y", read(u))
	})
	t.Run("modem wires", func(t *testing.T) {
		for out, in := range map[byte]byte{mcrDTR: msrDSR, mcrRTS: msrCTS, mcrOUT1: msrRI, mcrOUT2: msrDCD, 0: 0} {
			u := New(Config{})
			put(u, regMCR, mcrLoop|out)
			require.Equal(t, in, get(u, regMSR)&^msrDeltas)
		}
	})
	t.Run("ring tells of its end only", func(t *testing.T) {
		u := New(Config{})
		put(u, regMCR, mcrLoop)
		get(u, regMSR)
		put(u, regMCR, mcrLoop|mcrOUT1)
		require.EqualValues(t, msrRI, get(u, regMSR))
		put(u, regMCR, mcrLoop)
		require.EqualValues(t, msrTERI, get(u, regMSR))
	})
	t.Run("break holds the line", func(t *testing.T) {
		u := New(Config{})
		put(u, regMCR, mcrLoop)
		put(u, regLCR, lcrBreak)
		put(u, regData, 'x')
		require.Empty(t, read(u))
	})
}

func TestWideAccess(t *testing.T) {
	u := New(Config{})
	u.Store(regMCR, []byte{mcrDTR, 0, 0, 0xa5}) // MCR, LSR, MSR, SCR
	p := make([]byte, 8)
	u.Load(regMCR, p)
	require.EqualValues(t, mcrDTR, p[0])
	require.EqualValues(t, 0xa5, p[3])
	require.Equal(t, []byte{0xff, 0xff, 0xff, 0xff}, p[4:], "there is nothing behind the last register")
}
