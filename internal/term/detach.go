package term

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// ErrDetached is what a Detach reads once its keys have been pressed.
var ErrDetached = errors.New("detached")

// DefaultDetachKeys are Docker's.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ParseDetachKeys reads keys as Docker has them: letters, or ctrl- and one of a to z @ [ \ ] ^
// _, with commas between them. "" is no keys.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var keys []byte
	for _, word := range strings.Split(s, ",") {
		name, ctrl := strings.CutPrefix(strings.ToLower(word), "ctrl-")
		switch {
		case ctrl && len(name) == 1 && strings.Contains("@abcdefghijklmnopqrstuvwxyz[\\]^_", name):
			keys = append(keys, strings.ToUpper(name)[0]&0x1f)
		case !ctrl && len(word) == 1:
			keys = append(keys, word[0])
		default:
			return nil, fmt.Errorf("detach keys %q: %q is neither a character nor ctrl- and one of a-z @ [ \\ ] ^ _", s, word)
		}
	}
	return keys, nil
}

// A Detach passes on what is typed, up to a sequence of keys that detaches. Keys that may
// be the beginning of it wait for the next one.
type Detach struct {
	in      io.Reader
	keys    []byte
	matched int    // of keys
	ready   []byte // to be read
	err     error  // after that
}

// NewDetach passes on what in reads.
func NewDetach(in io.Reader, keys []byte) *Detach { return &Detach{in: in, keys: keys} }

// Read reads what is typed. ErrDetached is that the keys have been pressed.
func (d *Detach) Read(p []byte) (int, error) {
	if len(d.keys) == 0 {
		return d.in.Read(p)
	}
	for len(d.ready) == 0 && d.err == nil {
		n, err := d.in.Read(p)
		d.take(p[:n])
		if err != nil && d.err == nil {
			d.err = err
			if errors.Is(err, os.ErrDeadlineExceeded) { // the next Read may be another's
				d.err = nil
				return d.give(p, err)
			}
			d.ready = append(d.ready, d.keys[:d.matched]...)
			d.matched = 0
		}
	}
	return d.give(p, d.err)
}

// give gives what is ready, and the error when nothing is.
func (d *Detach) give(p []byte, err error) (int, error) {
	n := copy(p, d.ready)
	d.ready = d.ready[n:]
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// take looks for the keys.
func (d *Detach) take(typed []byte) {
	for _, b := range typed {
		pressed := append(bytes.Clone(d.keys[:d.matched]), b)
		if bytes.HasPrefix(d.keys, pressed) {
			if d.matched++; d.matched == len(d.keys) {
				d.err = ErrDetached
				return
			}
			continue
		}
		// The longest end of it that the keys begin with may still become them.
		keep := len(pressed) - 1
		for keep > 0 && !bytes.HasPrefix(d.keys, pressed[len(pressed)-keep:]) {
			keep--
		}
		d.ready = append(d.ready, pressed[:len(pressed)-keep]...)
		d.matched = keep
	}
}

// SetReadDeadline interrupts a Read, where that can be.
func (d *Detach) SetReadDeadline(t time.Time) error {
	if in, ok := d.in.(interface{ SetReadDeadline(time.Time) error }); ok {
		return in.SetReadDeadline(t)
	}
	return errors.ErrUnsupported
}
