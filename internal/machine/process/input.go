package process

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// An input is the command's standard input: what all clients send, one behind the other.
// It is a pipe of the kernel's, so that a Read can be interrupted, and who sends more than
// the command takes waits.
type input struct {
	*os.File
	w    *os.File
	once sync.Once
}

func newInput() (*input, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return &input{File: r, w: w}, nil
}

// from copies from a client to its end.
func (i *input) from(r io.Reader) { _, _ = io.Copy(onlyWriter{i.w}, r) }

// onlyWriter hides the file: what copies to it needs no splice(2).
type onlyWriter struct{ io.Writer }

// end tells the command that there is no more.
func (i *input) end() { i.once.Do(func() { _ = i.w.Close() }) }

func (i *input) close() {
	i.end()
	_ = i.Close()
}

// SetReadDeadline interrupts a Read.
func (i *input) SetReadDeadline(t time.Time) error { return i.File.SetReadDeadline(t) }
