package term

import (
	"io"
	"time"
)

// EscapeKey is Ctrl-A, the key that the commands to husk start with. Pressed
// twice, it is sent once.
const EscapeKey = 0x01

// Keys passes on what it reads, except for the keys that are meant for husk:
// Ctrl-A and one more. What follows Ctrl-A and means nothing is dropped.
type Keys struct {
	r       io.Reader
	actions map[byte]func()
	escaped bool // the last byte was Ctrl-A
}

// NewKeys reads from r. actions are by lower-case letter; they run on the
// goroutine that reads.
func NewKeys(r io.Reader, actions map[byte]func()) *Keys {
	return &Keys{r: r, actions: actions}
}

// Read reads what is not for husk.
func (k *Keys) Read(p []byte) (int, error) {
	for {
		n, err := k.r.Read(p)
		kept := k.filter(p[:n])
		if kept > 0 || err != nil || len(p) == 0 {
			return kept, err
		}
	}
}

// SetReadDeadline interrupts a Read where the reader below has deadlines.
func (k *Keys) SetReadDeadline(t time.Time) error {
	if d, ok := k.r.(interface{ SetReadDeadline(time.Time) error }); ok {
		return d.SetReadDeadline(t)
	}
	return nil
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
