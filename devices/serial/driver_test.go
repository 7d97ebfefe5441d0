package serial

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// line counts and remembers what a UART does to its interrupt.
type line struct {
	high  bool
	rises int
}

func (l *line) Set(high bool) {
	if high && !l.high {
		l.rises++
	}
	l.high = high
}

func get(u *UART, off uint64) byte {
	var p [1]byte
	u.Load(off, p[:])
	return p[0]
}

func put(u *UART, off uint64, v byte) { u.Store(off, []byte{v}) }

// open sets the port up as a driver does before it reads: FIFOs on with the
// given trigger bits, RTS and DTR, OUT2.
func open(u *UART, trigger, ier byte) {
	put(u, regFCR, fcrEnable|fcrClearRx|trigger<<6)
	put(u, regMCR, mcrDTR|mcrRTS|mcrOUT2)
	put(u, regIER, ier)
}

// TestLinuxAutoconfig takes the steps by which Linux tells UARTs apart
// (drivers/tty/serial/8250/8250_port.c: autoconfig, autoconfig_16550a, size_fifo)
// with all variants compiled in, and must come out at a plain 16550A.
func TestLinuxAutoconfig(t *testing.T) {
	var l line
	u := New(Config{Line: &l})

	// There is a port: IER keeps its four low bits.
	put(u, regIER, 0)
	require.Zero(t, get(u, regIER))
	put(u, regIER, 0xff)
	require.EqualValues(t, 0x0f, get(u, regIER), "more than 4 bits would be an XScale UART")
	put(u, regIER, 0)

	// Loopback connects RTS and OUT2 to CTS and DCD.
	put(u, regMCR, mcrLoop|mcrRTS|mcrOUT2)
	require.EqualValues(t, msrCTS|msrDCD, get(u, regMSR)&0xf0)
	put(u, regMCR, 0)

	// FIFOs that work: 11 in IIR's top bits.
	put(u, regLCR, 0xbf)
	put(u, 2, 0) // EFR, on chips that have one
	put(u, regLCR, 0)
	put(u, regFCR, fcrEnable)
	require.EqualValues(t, 3, get(u, regIIR)>>6)

	// No EFR, neither with DLAB (ST16C650V1) nor with 0xbf (V2): offset 2 is not 0.
	put(u, regLCR, lcrDLAB)
	require.NotZero(t, get(u, 2))
	put(u, regLCR, 0xbf)
	require.NotZero(t, get(u, 2))

	// No second bank (NS SuperIO): bit 4 at offset 2 does not follow the loop bit.
	for _, mcr := range []byte{0, mcrLoop} {
		put(u, regLCR, 0)
		put(u, regMCR, mcr)
		put(u, regLCR, 0xe0)
		require.Zero(t, get(u, 2)&mcrLoop)
	}
	put(u, regLCR, 0)
	put(u, regMCR, 0)

	// No 64-byte FIFO (TI16750), with DLAB or without.
	for _, lcr := range []byte{0, lcrDLAB} {
		put(u, regLCR, lcr)
		put(u, regFCR, fcrEnable|1<<5)
		require.EqualValues(t, 6, get(u, regIIR)>>5)
		put(u, regFCR, fcrEnable)
	}
	// Nor auto flow control.
	put(u, regLCR, 0)
	put(u, regMCR, 1<<5)
	require.Zero(t, get(u, regMCR))

	// The FIFO is 16 bytes deep.
	put(u, regFCR, fcrEnable|fcrClearRx|1<<2)
	put(u, regMCR, mcrLoop)
	put(u, regLCR, lcrDLAB)
	put(u, regData, 1)
	put(u, regIER, 0)
	put(u, regLCR, 3)
	for i := range 256 {
		put(u, regData, byte(i))
	}
	n := 0
	for ; get(u, regLSR)&lsrDR != 0; n++ {
		require.EqualValues(t, n, get(u, regData), "an overrun must not touch the FIFO")
	}
	require.Equal(t, fifoSize, n)
	put(u, regMCR, 0)

	// The divisor keeps what is written (an XR16C850 shows its id for 0).
	put(u, regLCR, lcrDLAB)
	put(u, regData, 0)
	put(u, regIER, 0)
	require.Zero(t, get(u, regData))
	require.Zero(t, get(u, regIER))
	put(u, regData, 0x34)
	put(u, regIER, 0x12)
	require.EqualValues(t, 0x34, get(u, regData))
	require.EqualValues(t, 0x12, get(u, regIER))
	put(u, regLCR, 3)
	require.EqualValues(t, 3, get(u, regLCR))
	require.Zero(t, get(u, regIER), "the divisor must not reach IER")

	for _, v := range []byte{0xa5, 0x5a} {
		put(u, regSCR, v)
		require.Equal(t, v, get(u, regSCR))
	}
	require.Zero(t, l.rises, "nothing may interrupt while OUT2 is off")
}

// TestLinuxStartup takes the checks of serial8250_do_startup: a port that fails
// them gets a timer that polls it, or loses its transmit interrupts.
func TestLinuxStartup(t *testing.T) {
	u := New(Config{})
	put(u, regFCR, fcrEnable)
	put(u, regFCR, fcrEnable|fcrClearRx|1<<2)
	put(u, regFCR, 0)
	get(u, regLSR)
	get(u, regData)
	get(u, regIIR)
	get(u, regMSR)
	require.NotEqualValues(t, 0xff, get(u, regLSR))

	// UART_BUG_THRE: enabling the interrupt twice must raise it twice.
	for range 2 {
		put(u, regIER, ierTHRE)
		require.EqualValues(t, iirTHRE, get(u, regIIR))
		put(u, regIER, 0)
	}
	// UART_BUG_TXEN: it must be there when the transmitter is empty.
	put(u, regIER, ierTHRE)
	require.NotZero(t, get(u, regLSR)&lsrTEMT)
	require.EqualValues(t, iirTHRE, get(u, regIIR))
	require.EqualValues(t, iirNone, get(u, regIIR), "reading IIR clears it")
}

// TestLinuxTransmit is serial8250_interrupt with serial8250_tx_chars: 16 bytes a
// round, rounds until IIR is quiet, all in one interrupt.
func TestLinuxTransmit(t *testing.T) {
	var l line
	u := New(Config{Line: &l})
	open(u, 2, 0)
	text := make([]byte, 100)

	accesses := 0
	put(u, regIER, ierTHRE) // start_tx
	require.Equal(t, 1, l.rises)
	for get(u, regIIR)&iirNone == 0 {
		accesses += 3 // IIR, LSR, MSR
		require.NotZero(t, get(u, regLSR)&lsrTHRE)
		get(u, regMSR)
		n := min(len(text), fifoSize)
		for _, v := range text[:n] {
			put(u, regData, v)
			accesses++
		}
		if text = text[n:]; len(text) == 0 {
			put(u, regIER, 0) // stop_tx
		}
	}
	require.Empty(t, text)
	require.Equal(t, 100+7*3, accesses)
	require.False(t, l.high)
}
