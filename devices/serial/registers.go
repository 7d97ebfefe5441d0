package serial

// Register offsets (data sheet §8, table II). With the LCR's DLAB set, 0 and 1 are
// the divisor's low and high byte.
const (
	regData = 0 // RBR when read, THR when written
	regIER  = 1
	regIIR  = 2 // when read
	regFCR  = 2 // when written
	regLCR  = 3
	regMCR  = 4
	regLSR  = 5
	regMSR  = 6
	regSCR  = 7
)

// Interrupt enable register (§8.8).
const (
	ierRDA  = 1 << 0 // received data available
	ierTHRE = 1 << 1 // transmitter holding register empty
	ierRLS  = 1 << 2 // receiver line status
	ierMSI  = 1 << 3 // modem status
	ierMask = 0x0f
)

// Interrupt identification register (§8.6, table IV).
const (
	iirMSI     = 0x00
	iirNone    = 0x01
	iirTHRE    = 0x02
	iirRDA     = 0x04
	iirRLS     = 0x06
	iirTimeout = 0x0c // data below the trigger level
	iirFIFO    = 0xc0 // FIFOs are on: what tells a 16550A from its elders
)

// FIFO control register (§8.5).
const (
	fcrEnable  = 1 << 0
	fcrClearRx = 1 << 1
)

// Line control register (§8.2).
const (
	lcrBreak = 1 << 6
	lcrDLAB  = 1 << 7
)

// Modem control register (§8.7).
const (
	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOUT1 = 1 << 2
	mcrOUT2 = 1 << 3
	mcrLoop = 1 << 4
	mcrMask = 0x1f
)

// Line status register (§8.4).
const (
	lsrDR     = 1 << 0 // data ready
	lsrOE     = 1 << 1 // overrun: the guest did not read in time, a byte is lost
	lsrPE     = 1 << 2
	lsrFE     = 1 << 3
	lsrBI     = 1 << 4 // break
	lsrErrors = lsrOE | lsrPE | lsrFE | lsrBI
	lsrTHRE   = 1 << 5
	lsrTEMT   = 1 << 6
	lsrFIFOE  = 1 << 7 // an error somewhere in the receiver FIFO
)

// Modem status register (§8.9).
const (
	msrTERI   = 1 << 2 // ring indicator has ended
	msrCTS    = 1 << 4
	msrDSR    = 1 << 5
	msrRI     = 1 << 6
	msrDCD    = 1 << 7
	msrDeltas = 0x0f
)

// pollsToListen is how many reads of the LSR, with nothing between them, tell
// that the guest waits for input without interrupts. A driver that sends reads
// it once or twice, as the transmitter is empty nearly always.
const pollsToListen = 64

// state is all that a guest can see of the chip, output aside.
type state struct {
	ier, lcr, mcr, scr byte
	dll, dlm           byte
	msr                byte
	errors             byte // LSR bits 1 to 4, of the oldest byte
	fifo               bool // FCR bit 0
	trigger            int  // bytes that raise the receive interrupt, with FIFO
	thrPending         bool // THRE interrupt, whether enabled or not
	rx                 fifo
	polls              int  // reads of the LSR in a row
	polled             bool // the guest polls for input
}

func (s *state) dlab() bool { return s.lcr&lcrDLAB != 0 }

// interrupt returns the pending interrupt of the highest priority, as the IIR
// shows it without the FIFO bits.
func (s *state) interrupt() byte {
	switch {
	case s.ier&ierRLS != 0 && s.errors != 0:
		return iirRLS
	case s.ier&ierRDA != 0 && s.rx.n > 0 && (!s.fifo || s.rx.n >= s.trigger):
		return iirRDA
	case s.ier&ierRDA != 0 && s.rx.n > 0:
		// The chip waits for four characters' time whether more comes. A
		// sender here gives all it has at once, so nothing more will.
		return iirTimeout
	case s.ier&ierTHRE != 0 && s.thrPending:
		return iirTHRE
	case s.ier&ierMSI != 0 && s.msr&msrDeltas != 0:
		return iirMSI
	}
	return iirNone
}

// setFIFO writes the FCR. What the transmitter's FIFO held is sent already, so
// clearing it does nothing.
func (s *state) setFIFO(v byte) {
	on := v&fcrEnable != 0
	if on != s.fifo || on && v&fcrClearRx != 0 {
		s.rx = fifo{last: s.rx.last}
		s.errors = 0
		s.polled = false
	}
	s.fifo = on
	if on {
		s.trigger = [4]int{1, 4, 8, 14}[v>>6]
	}
}

// setModem writes the MCR. Its outputs are the modem's inputs in loopback;
// otherwise the cable shows a terminal that is ready.
func (s *state) setModem(v byte) {
	s.mcr = v
	s.polled = false
	now := byte(msrCTS | msrDSR | msrDCD)
	if v&mcrLoop != 0 {
		now = 0
		for _, wire := range [...]struct{ out, in byte }{
			{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOUT1, msrRI}, {mcrOUT2, msrDCD},
		} {
			if v&wire.out != 0 {
				now |= wire.in
			}
		}
	}
	was := s.msr &^ msrDeltas
	deltas := (now ^ was) >> 4
	if was&^now&msrRI == 0 { // RI tells only of its end
		deltas &^= msrTERI
	}
	s.msr = now | s.msr&msrDeltas | deltas
}

// depth is how many bytes the receiver holds.
func (s *state) depth() int {
	if s.fifo {
		return fifoSize
	}
	return 1
}

// receive takes a byte with its errors (LSR bits) off the line. Without room
// that is an overrun: in FIFO mode the new byte is lost, else the old one (§8.4).
func (s *state) receive(v, errors byte) {
	if s.rx.n >= s.depth() {
		s.errors |= lsrOE
		if s.fifo {
			return
		}
		s.rx.pop()
	}
	s.rx.push(v, errors)
	s.revealErrors()
}

// revealErrors moves the errors of the oldest byte to the LSR: there they
// belong to the byte that is read next.
func (s *state) revealErrors() {
	if s.rx.n > 0 {
		s.errors |= s.rx.errors[s.rx.head]
		s.rx.errors[s.rx.head] = 0
	}
}
