package vmm

import (
	"bytes"
	"io"
	"sync"
)

// panicBanner is how every Linux kernel begins its last words
// (kernel/panic.c).
const panicBanner = "Kernel panic - not syncing"

// A consoleWatch passes the guest's console on and remembers whether the kernel
// has just panicked: not every kernel has the pvpanic driver loaded, and one that
// panics and reboots must not look like one that was asked to reboot.
//
// The banner counts at the start of a line, behind the kernel's time stamp, and
// until maxAfterPanic bytes came behind it: what goes on printing has not
// panicked, it has shown an old log.
type consoleWatch struct {
	out io.Writer // may be nil

	mu    sync.Mutex
	tail  []byte // the end of what was seen, for a banner cut in two
	line  []byte // from the banner on, up to the end of its line
	after int    // bytes since the banner
	seen  bool
}

const (
	// maxPanicLine bounds the reason that is kept.
	maxPanicLine = 200
	// maxAfterPanic is room for the traces of many processors, in bytes.
	maxAfterPanic = 64 << 10
)

// panicBanners are how the banner's line begins.
var panicBanners = [][]byte{[]byte("\n" + panicBanner), []byte("] " + panicBanner)}

// watch watches what a guest sends to end, which may be nil.
func watch(end *Serial) *consoleWatch {
	w := &consoleWatch{}
	if end != nil {
		w.out = end.Out
	}
	return w
}

// Write implements io.Writer.
func (w *consoleWatch) Write(p []byte) (int, error) {
	w.look(p)
	if w.out == nil {
		return len(p), nil
	}
	return w.out.Write(p)
}

func (w *consoleWatch) look(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.seen {
		w.tail = append(w.tail, p...)
		for _, b := range panicBanners {
			if i := bytes.Index(w.tail, b); i >= 0 {
				w.seen, w.after, w.line = true, 0, nil
				p = w.tail[i+len(b)-len(panicBanner):]
				break
			}
		}
		if !w.seen {
			keep := min(len(w.tail), len(panicBanner)+1)
			w.tail = append(w.tail[:0], w.tail[len(w.tail)-keep:]...)
			return
		}
		w.tail = nil
	}
	if room := maxPanicLine - len(w.line); room > 0 && !bytes.ContainsAny(w.line, "\r\n") {
		w.line = append(w.line, p[:min(room, len(p))]...)
	}
	if w.after += len(p); w.after > maxAfterPanic {
		w.seen = false
	}
}

// panicked is the line with which the kernel panicked, if it has.
func (w *consoleWatch) panicked() (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := w.line
	if i := bytes.IndexAny(line, "\r\n"); i >= 0 {
		line = line[:i]
	}
	return string(line), w.seen
}
