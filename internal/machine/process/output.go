package process

import (
	"io"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/machine/jsonlog"
)

// An output is where what the command writes goes: into the log, and to the clients that
// are attached.
type output struct {
	log *jsonlog.Writer

	mu      sync.Mutex
	viewers map[*viewer]struct{}
}

func newOutput(log *jsonlog.Writer) *output {
	return &output{log: log, viewers: map[*viewer]struct{}{}}
}

func (o *output) close() { _ = o.log.Close() }

// to is where a stream of the command goes.
func (o *output) to(stream string) io.Writer {
	return writer(func(p []byte) {
		o.log.Write(stream, p, time.Now())
		o.mu.Lock()
		viewers := make([]*viewer, 0, len(o.viewers))
		for v := range o.viewers {
			viewers = append(viewers, v)
		}
		o.mu.Unlock()
		for _, v := range viewers {
			v.take(stream, p)
		}
	})
}

// writer makes a function that cannot fail a Writer.
type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// maxBehind is how many bytes a client may be behind that the command does not wait for.
const maxBehind = 4 << 20

// A viewer is an attached client. One that is patient has the command wait for it, as a
// terminal has: the one that has started the machine. Another falls behind.
type viewer struct {
	stdout, stderr io.Writer
	patient        bool

	mu     sync.Mutex
	behind []piece // to be written
	size   int     // of it, in bytes
	closed bool    // nothing more comes

	wake    chan struct{} // has a token when behind or closed have changed
	tooSlow chan struct{} // closed when it is too far behind
	drained chan struct{} // closed when all is written
}

// A piece is output for a viewer.
type piece struct {
	to    io.Writer
	bytes []byte
}

// add attaches a client. It must be removed.
func (o *output) add(stdout, stderr io.Writer, patient bool) *viewer {
	v := &viewer{
		stdout: stdout, stderr: stderr, patient: patient,
		wake: make(chan struct{}, 1), tooSlow: make(chan struct{}), drained: make(chan struct{}),
	}
	if patient {
		close(v.drained)
	} else {
		go v.write()
	}
	o.mu.Lock()
	o.viewers[v] = struct{}{}
	o.mu.Unlock()
	return v
}

// remove detaches a client; what it is behind is still written.
func (o *output) remove(v *viewer) {
	o.mu.Lock()
	delete(o.viewers, v)
	o.mu.Unlock()
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.stir()
}

// take gives a client some output. Where the client is gone, writing fails at once, and it
// is removed soon.
func (v *viewer) take(stream string, p []byte) {
	to := v.stdout
	if stream == jsonlog.Stderr {
		to = v.stderr
	}
	if v.patient {
		_, _ = to.Write(p)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	if v.size+len(p) > maxBehind {
		v.closed = true
		close(v.tooSlow)
	} else {
		v.behind = append(v.behind, piece{to, append([]byte(nil), p...)})
		v.size += len(p)
	}
	v.stir()
}

func (v *viewer) stir() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// write writes what a client is behind, until nothing more comes.
func (v *viewer) write() {
	defer close(v.drained)
	for {
		v.mu.Lock()
		list, closed := v.behind, v.closed
		v.behind = nil
		v.mu.Unlock()
		for _, p := range list {
			if _, err := p.to.Write(p.bytes); err != nil {
				return
			}
			v.mu.Lock()
			v.size -= len(p.bytes)
			v.mu.Unlock()
		}
		if closed && len(list) == 0 {
			return
		}
		if !closed {
			<-v.wake
		}
	}
}
