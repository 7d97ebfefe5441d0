package report

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/huskvm/husk/internal/smoke/result"
)

// redraws is the least time between two redraws.
const redraws = 100 * time.Millisecond

// closeTime is how long Close waits for a terminal that takes nothing: one that is
// stopped (Ctrl-S) stays so until somebody comes, and husk is to end before.
const closeTime = 2 * time.Second

// finalPiece is what of the end is written at a time, so that a slow terminal is not
// taken for one that is stopped.
const finalPiece = 1 << 10

var errStopped = errors.New("the terminal has taken nothing for 2 s, so the end of the report is lost; is it stopped (Ctrl-S)?")

// NewLive reports to a terminal: ended cases scroll by, and below them stand those
// that run, with stage and time, redrawn in place. Nothing of that is left after
// Close. The terminal's cursor and modes stay as they are, so that a husk that is
// killed leaves nothing to repair.
//
// Only Close waits for the terminal, and no longer than two seconds for one that takes
// nothing.
func NewLive(w io.Writer, opts Options) Progress {
	l := &live{
		w: w, tally: newTally(opts),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go l.run()
	return l
}

// live is the Progress on a terminal. Only run writes, and holds no lock meanwhile:
// what comes then waits in ended, a line for each case.
type live struct {
	w       io.Writer
	close   sync.Once
	stop    chan struct{}
	stopped chan struct{} // closed when run writes no more
	writes  atomic.Int64  // those that the terminal has taken

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
	attempt     int
	since       time.Time // of the attempt
}

func (l *live) CaseStarted(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	attempt := l.remove(name) + 1
	l.running = append(l.running, &running{name: name, stage: "starting", attempt: attempt, since: time.Now()})
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

// remove takes a case from those that run, and returns the attempt that it was at.
func (l *live) remove(name string) int {
	for i, r := range l.running {
		if r.name == name {
			l.running = append(l.running[:i], l.running[i+1:]...)
			return r.attempt
		}
	}
	return 0
}

func (l *live) Close() error {
	l.close.Do(func() {
		close(l.stop)
		l.await()
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// await waits until all is written, or the terminal takes nothing any more.
func (l *live) await() {
	ticker := time.NewTicker(closeTime)
	defer ticker.Stop()
	for before := l.writes.Load(); ; before = l.writes.Load() {
		select {
		case <-l.stopped:
			return
		case <-ticker.C:
			if l.writes.Load() == before {
				l.failed(errStopped)
				return
			}
		}
	}
}

// run redraws until it is stopped, and then writes the end.
func (l *live) run() {
	defer close(l.stopped)
	ticker := time.NewTicker(redraws)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			for rest := l.final(); rest != ""; {
				n := min(len(rest), finalPiece)
				l.write(rest[:n])
				rest = rest[n:]
			}
			return
		case <-ticker.C:
			l.write(l.frame())
		}
	}
}

// final is what stands there for good.
func (l *live) final() string {
	columns, _ := l.size()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.erase(columns) + l.scroll() + l.tally.end()
}

// frame takes away what stands there, lets ended cases scroll by, and draws what
// runs now: in one write, so that nobody sees the half of it.
func (l *live) frame() string {
	columns, rows := l.size()
	l.mu.Lock()
	defer l.mu.Unlock()
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
	return frame
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
		again := ""
		if r.attempt > 1 {
			again = fmt.Sprintf("attempt %d: ", r.attempt)
		}
		lines = append(lines, fmt.Sprintf("%9s  %s: %s%s",
			ticking(time.Since(r.since)), oneLine(r.name), again, oneLine(r.stage)))
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
	l.mu.Lock()
	over := l.err != nil || s == ""
	l.mu.Unlock()
	if over {
		return
	}
	if _, err := io.WriteString(l.w, s); err != nil {
		l.failed(err)
	}
	l.writes.Add(1)
}

// failed keeps the first error; nothing is written any more.
func (l *live) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
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
