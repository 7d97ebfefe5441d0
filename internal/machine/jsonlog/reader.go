package jsonlog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"
)

// Options say what of a log is wanted.
type Options struct {
	Since, Until time.Time // zero for no bound
	Tail         int       // how many lines from the end; negative for all
	// Follow waits for more, until Ended says that there will be none.
	Follow bool
	// Ended tells whether nobody writes to the log any more. It is asked before the last
	// look.
	Ended func() bool
}

// between is how long to wait before it is looked for more.
const between = 50 * time.Millisecond

// Read calls f with the entries that are wanted, up to the end of the log, or of the
// machine. What is not an entry, such as one that a full disk has cut, is passed over. A
// file that is cut or replaced while it is followed is read from its new beginning.
func Read(ctx context.Context, path string, o Options, f func(Entry) error) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && !o.Follow {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer func() { _ = file.Close() }() // nil is refused, without harm
	r := &reader{path: path, f: file, options: o, each: f}
	if file != nil && o.Tail >= 0 {
		if r.at, err = tail(file, o.Tail); err != nil {
			return err
		}
	}
	defer func() { file = r.f }()
	for {
		last := !o.Follow || o.Ended != nil && o.Ended()
		if err := r.more(); err != nil {
			if errors.Is(err, errEnough) {
				return nil
			}
			return err
		}
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(between):
		}
	}
}

// errEnough is that what follows is not wanted.
var errEnough = errors.New("later than wanted")

// A reader has read a file up to a place.
type reader struct {
	path    string
	f       *os.File // nil while there is none
	at      int64
	options Options
	each    func(Entry) error
}

// more reads what there is.
func (r *reader) more() error {
	if err := r.reopen(); err != nil || r.f == nil {
		return err
	}
	in := bufio.NewReaderSize(io.NewSectionReader(r.f, r.at, 1<<62), 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // half a line is read again when it is whole
		}
		if err != nil {
			return err
		}
		r.at += int64(len(line))
		e, ok := parse(line)
		switch {
		case !ok || e.Time.Before(r.options.Since):
			continue
		case !r.options.Until.IsZero() && e.Time.After(r.options.Until):
			return errEnough
		}
		if err := r.each(e); err != nil {
			return err
		}
	}
}

// reopen looks whether the file is another, or has been cut.
func (r *reader) reopen() error {
	there, err := os.Stat(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // what is open is what there is
	}
	if err != nil {
		return err
	}
	if r.f != nil {
		ours, err := r.f.Stat()
		if err != nil {
			return err
		}
		if os.SameFile(there, ours) {
			if there.Size() < r.at {
				r.at = 0
			}
			return nil
		}
		_ = r.f.Close()
		r.f = nil
	}
	f, err := os.Open(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	r.f, r.at = f, 0
	return err
}

// parse reads an entry.
func parse(line []byte) (e Entry, ok bool) {
	err := json.Unmarshal(line, &e)
	return e, err == nil && (e.Stream == Stdout || e.Stream == Stderr)
}

// block is how much is read at a time, from the end backwards.
const block = 64 << 10

// tail is where the last so many lines of output begin. A line whose end has not come yet
// counts as one.
func tail(f *os.File, lines int) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || lines == 0 {
		return end, err
	}
	complete := -1 // the last one's end is not that of the one before
	start := end
	var rest []byte // the beginning of the line that the block before has the end of
	for at := end; at > 0; {
		n := min(block, at)
		at -= n
		b := make([]byte, n, n+int64(len(rest)))
		if _, err := f.ReadAt(b, at); err != nil {
			return 0, err
		}
		b = append(b, rest...)
		for {
			// The entry before the last end of line in b.
			i := bytes.LastIndexByte(bytes.TrimSuffix(b, []byte{'\n'}), '\n') + 1
			if i == 0 && at > 0 {
				break // it begins in the block before
			}
			if e, ok := parse(b[i:]); ok {
				if whole := bytes.HasSuffix(e.Bytes(), []byte{'\n'}); whole || complete < 0 {
					complete++
				}
				if complete == lines {
					return start, nil
				}
				start = at + int64(i)
			}
			if b = b[:i]; i == 0 {
				break
			}
		}
		rest = b
	}
	return 0, nil
}
