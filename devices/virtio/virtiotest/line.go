package virtiotest

import (
	"sync/atomic"
	"testing"
)

// A Line is an interrupt input with a processor that answers it: handle runs
// again and again while the line is up, and lowers it by what it does.
type Line struct {
	high atomic.Bool
	poke chan struct{}
}

// NewLine returns a Line, whose processor works until t ends.
func NewLine(t testing.TB, handle func()) *Line {
	l := &Line{poke: make(chan struct{}, 1)}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-l.poke:
			}
			for l.high.Load() {
				handle()
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
	return l
}

// Set implements devices.Line.
func (l *Line) Set(high bool) {
	l.high.Store(high)
	select {
	case l.poke <- struct{}{}:
	default: // it will look
	}
}
