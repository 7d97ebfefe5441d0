package console

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// How much of a console is kept. A guest may print for ever: matching, detectors and
// watchers see all of it, but of what came, only head and tail stay.
const (
	rawHead, rawTail   = 4 << 20, 12 << 20 // as it came, in bytes
	lineHead, lineTail = 2 << 20, 6 << 20  // as lines, in bytes with lineCost for each
	windowSize         = 1 << 20           // for an Expect that is made, or comes, late
	// pieceSize bounds what is looked at in one go, and so how far a search may lag.
	pieceSize = 64 << 10
)

// A Transcript is a guest's console: what came, and when. Its methods may be called
// from any goroutine; Add and Close wait for one another, and may not be called from
// what they call.
type Transcript struct {
	adding sync.Mutex // held through Add and Close, with what they call
	tee    io.Writer  // nil for none, and where one has failed
	teeErr error

	mu       sync.Mutex
	plain    plain
	raw      kept
	lines    lineList
	maker    lineMaker
	window   window
	last     time.Duration
	closed   bool
	wake     chan struct{} // closed when text comes; nil while nobody waits
	watchers []func(Line)
	searches []watch
	scratch  []byte
}

// A watch is a search that is made as text comes.
type watch struct {
	search *search
	f      func(Match)
}

// New makes an empty transcript.
func New() *Transcript {
	return &Transcript{
		raw:    kept{headMax: rawHead, tailMax: rawTail},
		lines:  lineList{headMax: lineHead, tailMax: lineTail},
		window: window{max: windowSize},
	}
}

// Add takes what came at a time since the machine's start, by the host's monotonic
// clock. It calls the watchers. What comes behind Close is dropped.
func (t *Transcript) Add(at time.Duration, p []byte) {
	t.adding.Lock()
	defer t.adding.Unlock()
	if t.tee != nil && !t.isClosed() {
		if _, t.teeErr = t.tee.Write(p); t.teeErr != nil {
			t.tee = nil
		}
	}
	for len(p) > 0 {
		n := min(len(p), pieceSize)
		t.add(at, p[:n])
		p = p[n:]
	}
}

// Tee has all that comes from now on written to w as well, every byte as it came and
// without a limit, from Add's goroutine, which waits for it. What goes wrong with that
// ends it, and is what Err returns.
func (t *Transcript) Tee(w io.Writer) {
	t.adding.Lock()
	defer t.adding.Unlock()
	t.tee = w
}

// Err is what went wrong with Tee's writer.
func (t *Transcript) Err() error {
	t.adding.Lock()
	defer t.adding.Unlock()
	return t.teeErr
}

func (t *Transcript) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// Close says that no more comes. The line that has not ended is one now.
func (t *Transcript) Close() {
	t.adding.Lock()
	defer t.adding.Unlock()
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.closed = true
	text := t.plain.flush(t.scratch[:0])
	lines, matches := t.take(t.last, text)
	if t.maker.begun {
		lines = append(lines, t.maker.line())
		t.lines.add(lines[len(lines)-1])
		t.maker = lineMaker{}
	}
	for _, w := range t.searches {
		if m := w.search.finish(); m != nil {
			matches = append(matches, t.reached(w.f, m))
		}
	}
	t.searches = nil
	t.deliver(lines, matches)
}

func (t *Transcript) add(at time.Duration, p []byte) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	at = max(at, t.last)
	t.last = at
	t.raw.add(p)
	t.scratch = t.plain.feed(t.scratch[:0], p)
	lines, matches := t.take(at, t.scratch)
	t.deliver(lines, matches)
}

// take puts text away, and says who is to hear of it.
func (t *Transcript) take(at time.Duration, text []byte) (lines []Line, matches []func()) {
	t.window.add(at, text)
	t.maker.add(at, text, func(line Line) {
		t.lines.add(line)
		lines = append(lines, line)
	})
	if len(text) > 0 && len(t.searches) > 0 {
		open := t.searches[:0]
		for _, w := range t.searches {
			if m := w.search.feed(text); m != nil {
				matches = append(matches, t.reached(w.f, m))
			} else {
				open = append(open, w)
			}
		}
		t.searches = open
	}
	return lines, matches
}

// deliver gives up t.mu and calls those who watch.
func (t *Transcript) deliver(lines []Line, matches []func()) {
	if t.wake != nil {
		close(t.wake)
		t.wake = nil
	}
	watchers := t.watchers
	t.mu.Unlock()
	for _, line := range lines {
		for _, f := range watchers {
			f(line)
		}
	}
	for _, f := range matches {
		f()
	}
}

func (t *Transcript) reached(f func(Match), m *found) func() {
	match := t.match(m)
	return func() { f(match) }
}

// match is m with its text.
func (t *Transcript) match(m *found) Match {
	out := Match{Start: m.start, End: m.end, Text: t.window.span(m.start, m.end), At: t.window.when(m.end)}
	for i := 0; i+1 < len(m.groups); i += 2 {
		out.Groups = append(out.Groups, t.window.span(m.groups[i], m.groups[i+1]))
	}
	return out
}

// Watch calls f for each line that comes from now on, once it has ended, in their
// order, from Add's goroutine, and from Close's for the one that has not.
func (t *Transcript) Watch(f func(Line)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watchers = append(t.watchers[:len(t.watchers):len(t.watchers)], f)
}

// WatchFor calls f once, for the first match of p in what comes from now on, be it
// on a line or over many. It is for what must not be on the console: unlike with
// Expect, nothing is missed however much comes, and a match that the next bytes may
// make longer is told of at the end of its line, or at Close.
func (t *Transcript) WatchFor(p Pattern, f func(Match)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.searches = append(t.searches, watch{newSearch(p, t.window.end(), t.lastRune()), f})
}

// lastRune is the last character of the text so far.
func (t *Transcript) lastRune() rune {
	tail, _ := t.window.from(t.window.end()-4, 4)
	return lastRune(tail)
}

// Raw is every byte as it came, up to 16 MiB: of more, the first 4 MiB and the last
// 12 MiB, with a line between them that says how much was left out. Tee has all.
func (t *Transcript) Raw() []byte {
	var b bytes.Buffer
	_, _ = t.WriteTo(&b) // a buffer takes everything
	return b.Bytes()
}

// WriteTo writes what Raw returns.
func (t *Transcript) WriteTo(w io.Writer) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.raw.writeTo(w)
}

// Lines is the console's lines, the one that has not ended with them. Of more than
// about 8 MiB, lines in the middle are left out, and one says how many.
func (t *Transcript) Lines() []Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.lines.all()
	if t.maker.begun {
		out = append(out, t.maker.line())
	}
	return out
}
