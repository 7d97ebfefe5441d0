// Package report tells people and machines what a smoke test has found: on a
// terminal while it runs, and as JUnit, TAP, JSON and GitHub's annotations when it
// is over. It reads a result.Run and decides nothing.
package report

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/smoke/result"
)

// A Progress is told of cases as they run. Its methods may be called by many
// goroutines at once, and but for Close's return without waiting for a terminal. A
// case is known by its name.
type Progress interface {
	// CaseStarted says that a case's machine is being started: once for each attempt.
	CaseStarted(name string)
	// StageReached says how far the case's guest has come, at since its machine's start.
	StageReached(name, stage string, at time.Duration)
	// CaseDone says how the case ended. It may be one that was never started. The case
	// must not change afterwards.
	CaseDone(c *result.Case)
	// Close says why cases failed, and sums up. It returns the first error of writing.
	Close() error
}

// Options are what a Progress should know.
type Options struct {
	Cases int  // how many there are
	Color bool // use ANSI's colours; see Color
	// Accel is the run's, for the summary to say so where it is not KVM.
	Accel string
	// Size is the terminal's, in columns and rows, asked before every redraw. Nil, or
	// what is not positive, is taken for 80 by 24. Only NewLive asks.
	Size func() (columns, rows int)
}

// Color tells whether the user's environment allows colours on a terminal: no
// NO_COLOR (no-color.org), and a TERM that is not dumb.
func Color() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// NewPlain reports to what is no terminal: a line for each case as it ends, and
// nothing is taken back.
func NewPlain(w io.Writer, opts Options) Progress {
	return &plain{w: w, tally: newTally(opts)}
}

// plain is the Progress without a terminal.
type plain struct {
	mu    sync.Mutex
	w     io.Writer
	tally *tally
	err   error
}

func (p *plain) CaseStarted(string)                         {}
func (p *plain) StageReached(string, string, time.Duration) {}

func (p *plain) CaseDone(c *result.Case) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tally.add(c)
	p.write(p.tally.paint.caseLine(c) + "\n")
}

func (p *plain) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(p.tally.end())
	return p.err
}

func (p *plain) write(s string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, s)
	}
}
