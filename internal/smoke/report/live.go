package report

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/huskvm/husk/internal/smoke/result"
)

// redraws is the least time between two redraws.
const redraws = 100 * time.Millisecond

// NewLive reports to a terminal: ended cases scroll by, and below them stand those
// that run, with stage and time, redrawn in place. Nothing of that is left after
// Close. The terminal's cursor and modes stay as they are, so that a husk that is
// killed leaves nothing to repair.
func NewLive(w io.Writer, opts Options) Progress {
	l := &live{
		w: w, tally: newTally(opts),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go l.run()
	return l
}

// live is the Progress on a terminal. Only run, and Close after it, write.
type live struct {
	w     io.Writer
	close sync.Once
	stop  chan struct{}
	// stopped is closed when run writes no more.
	stopped chan struct{}

	mu      sync.Mutex
	tally   *tally
	running []*running // in the order of their starts
	ended   []string   // lines that are to scroll by
	drawn   []int      // the widths of the lines that stand there now
	err     error
}

// running is a case that runs.
type running struct {
	name, stage string
	since       time.Time
}

func (l *live) CaseStarted(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(name)
	l.running = append(l.running, &running{name: name, stage: "starting", since: time.Now()})
}

func (l *live) StageReached(name, stage string, _ time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.running {
		if r.name == name {
			r.stage = stage
		}
	}
}

func (l *live) CaseDone(c *result.Case) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(c.Name)
	l.tally.add(c)
	l.ended = append(l.ended, l.tally.paint.caseLine(c))
}

func (l *live) remove(name string) {
	for i, r := range l.running {
		if r.name == name {
			l.running = append(l.running[:i], l.running[i+1:]...)
			return
		}
	}
}

func (l *live) Close() error {
	l.close.Do(func() {
		close(l.stop)
		<-l.stopped
		l.mu.Lock()
		defer l.mu.Unlock()
		columns, _ := l.size()
		l.write(l.erase(columns) + l.scroll() + l.tally.end())
	})
	return l.err
}

// run redraws until it is stopped.
func (l *live) run() {
	defer close(l.stopped)
	ticker := time.NewTicker(redraws)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
			l.redraw()
		}
	}
}

// redraw takes away what stands there, lets ended cases scroll by, and draws what
// runs now: in one write, so that nobody sees the half of it.
func (l *live) redraw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	columns, rows := l.size()
	frame := l.erase(columns) + l.scroll()
	for i, line := range l.lines(rows) {
		if i > 0 {
			frame += "\n"
		}
		// The last column stays free: a cursor behind it would be in the next line on
		// some terminals.
		line = clip(line, columns-1)
		l.drawn = append(l.drawn, width(line))
		frame += line
	}
	l.write(frame)
}

// erase takes the drawn lines away. A terminal that has become narrower has
// wrapped them. Each is erased by itself: of a screen that is cleared from its first
// line on, tmux keeps what was there.
func (l *live) erase(columns int) string {
	if len(l.drawn) == 0 {
		return ""
	}
	up := -1
	for _, w := range l.drawn {
		up += max(1, (w+columns-1)/columns)
	}
	l.drawn = l.drawn[:0]
	return "\r\x1b[2K" + strings.Repeat("\x1b[A\x1b[2K", up)
}

// scroll is the lines of the cases that have ended since.
func (l *live) scroll() string {
	if len(l.ended) == 0 {
		return ""
	}
	s := strings.Join(l.ended, "\n") + "\n"
	l.ended = nil
	return s
}

// lines are what is to stand there: on half of the rows, for when the terminal
// becomes so narrow that they are wrapped, what leaves its top cannot be erased.
func (l *live) lines(rows int) []string {
	var lines []string
	for i, r := range l.running {
		if room := max(rows/2-2, 0); i >= room {
			lines = append(lines, fmt.Sprintf("          and %d more", len(l.running)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("%9s  %s: %s",
			ticking(time.Since(r.since)), oneLine(r.name), oneLine(r.stage)))
	}
	status := fmt.Sprintf("%9s  %d of %d done, %d running",
		ticking(time.Since(l.tally.begun)), l.tally.done, max(l.tally.opts.Cases, l.tally.done), len(l.running))
	if n := len(l.tally.failed); n > 0 {
		status += fmt.Sprintf(", %d failed", n)
	}
	return append(lines, status)
}

func (l *live) size() (columns, rows int) {
	if l.tally.opts.Size != nil {
		columns, rows = l.tally.opts.Size()
	}
	if columns <= 0 || rows <= 0 {
		return 80, 24
	}
	return columns, rows
}

func (l *live) write(s string) {
	if l.err == nil && s != "" {
		_, l.err = io.WriteString(l.w, s)
	}
}

// ticking is a time that goes on: its form must not jump about ten times a second.
func ticking(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return short(d)
}

// clip cuts a line to so many columns.
func clip(s string, columns int) string {
	if width(s) <= columns {
		return s
	}
	if columns < 1 {
		return ""
	}
	used := 1 // for the dots
	for i, r := range s {
		if used += runeWidth(r); used > columns {
			return s[:i] + "…"
		}
	}
	return s
}

// width is how many columns s takes on a terminal.
func width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// wide is what takes two columns: East Asian scripts, full-width forms, emoji.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1},
		{Lo: 0x2e80, Hi: 0xa4cf, Stride: 1},
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1},
		{Lo: 0xf900, Hi: 0xfaff, Stride: 1},
		{Lo: 0xfe30, Hi: 0xfe6f, Stride: 1},
		{Lo: 0xff00, Hi: 0xff60, Stride: 1},
		{Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x1f300, Hi: 0x1faff, Stride: 1},
		{Lo: 0x20000, Hi: 0x3fffd, Stride: 1},
	},
}

func runeWidth(r rune) int {
	switch {
	case r < utf8.RuneSelf:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}
