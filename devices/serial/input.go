package serial

import "context"

// Input gives bytes to the guest, as fast as it reads them, and returns how
// many it has taken. It blocks until the guest has room for all; nothing
// is overrun. It returns early only with the error of ctx.
//
// It gives nothing to a guest that does not listen: one that neither raises
// RTS, for which a terminal with hardware flow control would wait, nor polls
// the line status for input. A driver clears the receiver while it probes and
// opens a port, and what waited there would be lost; RTS is low until then.
func (u *UART) Input(ctx context.Context, p []byte) (int, error) {
	return u.send(ctx, p, 0)
}

// Break sends a break to the guest, which Linux takes for the SysRq key. It
// blocks as Input does.
func (u *UART) Break(ctx context.Context) error {
	_, err := u.send(ctx, []byte{0}, lsrBI) // a break comes with a NUL
	return err
}

func (u *UART) send(ctx context.Context, p []byte, errors byte) (int, error) {
	sent := 0
	for {
		n, room := u.offer(p[sent:], errors)
		if sent += n; sent == len(p) {
			return sent, nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return sent, ctx.Err()
		}
	}
}

// offer gives the receiver what it has room for. If that is not all, it returns
// a channel that is closed when to try again.
func (u *UART) offer(p []byte, errors byte) (int, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &u.regs
	n := 0
	if s.listens() {
		for n < len(p) && s.rx.n < s.depth() {
			s.receive(p[n], errors)
			n++
		}
		u.updateLine()
	}
	if n == len(p) {
		return n, nil
	}
	if u.inputRoom == nil {
		u.inputRoom = make(chan struct{})
	}
	return n, u.inputRoom
}

// wakeSender lets a waiting sender try again, once the receiver is half empty:
// not for each byte that the guest reads.
func (u *UART) wakeSender() {
	if s := &u.regs; u.inputRoom != nil && s.listens() && s.rx.n <= s.depth()/2 {
		close(u.inputRoom)
		u.inputRoom = nil
	}
}

// listens tells whether the guest wants input. The receiver is cut off from the
// line in loopback.
func (s *state) listens() bool {
	return s.mcr&mcrLoop == 0 && (s.mcr&mcrRTS != 0 || s.polled)
}
