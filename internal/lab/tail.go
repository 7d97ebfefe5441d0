package lab

import (
	"io"
	"strings"
	"sync"
)

// tailSize is how much of an output is kept, in bytes.
const tailSize = 256 << 10

// A tail keeps the end of what is written to it, and passes all of it on.
type tail struct {
	mu   sync.Mutex
	kept []byte
	next io.Writer // may be nil
}

func newTail(next io.Writer) *tail { return &tail{next: next} }

// Write never fails: QEMU must not stop for it.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailSize; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	if t.next != nil {
		_, _ = t.next.Write(p)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.kept...)
}

// last gives the last n lines, with nothing in them that steers a terminal.
func (t *tail) last(n int) string {
	lines := strings.Split(strings.TrimSpace(string(t.bytes())), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		lines[i] = strings.Map(func(r rune) rune {
			if r != '\t' && r < ' ' || r >= 0x7f && r < 0xa0 {
				return -1
			}
			return r
		}, line)
	}
	return strings.Join(lines, "\n")
}
