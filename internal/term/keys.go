package term

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// EscapeKey is Ctrl-A, the key that the commands to husk start with. Pressed
// twice, it is sent once.
const EscapeKey = 0x01

// keysAhead is how many bytes may wait to be taken: the most that a pipe may
// have without privileges, and enough for what people paste.
const keysAhead = 1 << 20

// Keys passes on what is typed, except for the keys that are meant for husk:
// Ctrl-A and one more. What follows Ctrl-A and means nothing is dropped.
//
// It reads ahead: a guest that takes no input must not keep husk from its keys.
// What nobody has taken yet waits in a pipe, and what finds no room there is
// dropped, as a terminal does it.
type Keys struct {
	in      *Input
	actions map[byte]func()
	escaped bool // the last byte was Ctrl-A

	ahead *os.File // the pipe's end to read from
	w     int      // and the other, which does not block
	begin sync.Once
	ended chan struct{} // closed when nothing more is read from in
	err   error         // why
}

// NewKeys passes on what in reads, from the first Read on. actions are by
// lower-case letter; they run on a goroutine of Keys, one at a time.
func NewKeys(in *Input, actions map[byte]func()) (*Keys, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	// Without more room, 64 KiB must do.
	_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, keysAhead)
	return &Keys{
		in: in, actions: actions,
		ahead: os.NewFile(uintptr(p[0]), "keys"), w: p[1],
		ended: make(chan struct{}),
	}, nil
}

// Read reads what is not for husk.
func (k *Keys) Read(p []byte) (int, error) {
	k.begin.Do(func() { go k.readAhead() })
	n, err := k.ahead.Read(p)
	if errors.Is(err, io.EOF) {
		<-k.ended
		err = k.err
	}
	return n, err
}

// SetReadDeadline interrupts a Read, as os.File has it. Keys for husk are
// heeded all the same.
func (k *Keys) SetReadDeadline(t time.Time) error { return k.ahead.SetReadDeadline(t) }

// Close frees what NewKeys took, and ends a Read that is under way. It waits
// for the action that runs, and leaves in, which stays the caller's, with a
// deadline that has passed.
func (k *Keys) Close() error {
	k.begin.Do(func() { k.end(os.ErrClosed) })
	err := k.in.SetReadDeadline(time.Unix(1, 0))
	<-k.ended
	return errors.Join(err, k.ahead.Close())
}

func (k *Keys) readAhead() {
	buf := make([]byte, 512) // less than PIPE_BUF: there is room for all of it, or it is dropped
	for {
		n, err := k.in.Read(buf)
		_, _ = unix.Write(k.w, buf[:k.filter(buf[:n])])
		if err != nil {
			k.end(err)
			return
		}
	}
}

func (k *Keys) end(err error) {
	k.err = err
	_ = unix.Close(k.w)
	close(k.ended)
}

// filter moves what is to be passed on to the front of p, and counts it.
func (k *Keys) filter(p []byte) int {
	kept := 0
	for _, b := range p {
		switch {
		case !k.escaped && b == EscapeKey:
			k.escaped = true
			continue
		case !k.escaped || b == EscapeKey:
			p[kept] = b
			kept++
		default:
			if 'A' <= b && b <= 'Z' {
				b += 'a' - 'A'
			}
			if act := k.actions[b]; act != nil {
				act()
			}
		}
		k.escaped = false
	}
	return kept
}
