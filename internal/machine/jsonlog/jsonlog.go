// Package jsonlog is the file in which the output of a machine's command is kept: JSON
// values, one a line, in the form of Docker's json-file driver.
package jsonlog

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// The streams.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// An Entry is a piece of output: a line with its end, or what came of one at a time.
type Entry struct {
	Log string `json:"log"`
	// Raw is what Log would be if it is not UTF-8, which JSON cannot carry: in base64. Log is
	// a readable form of it then.
	Raw    string    `json:"raw,omitempty"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// Bytes are the entry's.
func (e Entry) Bytes() []byte {
	if e.Raw != "" {
		if b, err := base64.StdEncoding.DecodeString(e.Raw); err == nil {
			return b
		}
	}
	return []byte(e.Log)
}

// maxEntry bounds an entry in bytes, before they are written as JSON.
const maxEntry = 16 << 10

// A Writer adds to a log file. Its methods can be called from any goroutine.
type Writer struct {
	mu   sync.Mutex
	f    *os.File
	torn bool   // the last write was not whole
	lost uint64 // bytes that could not be written
	why  error
	buf  bytes.Buffer
}

// Create opens a log file to add to it, and makes it if it is not there.
func Create(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &Writer{f: f}, nil
}

// Write adds what a stream has given. It never fails, as a full disk must not end a machine:
// see Lost.
func (w *Writer) Write(stream string, p []byte, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Reset()
	if w.torn {
		w.buf.WriteByte('\n') // so that one entry is spoilt and not two
	}
	e := json.NewEncoder(&w.buf)
	e.SetEscapeHTML(false)
	for rest := p; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n') + 1
		if n == 0 || n > maxEntry {
			n = cut(rest)
		}
		entry := Entry{Log: string(rest[:n]), Stream: stream, Time: now.UTC()}
		if !utf8.Valid(rest[:n]) {
			entry.Raw = base64.StdEncoding.EncodeToString(rest[:n])
		}
		_ = e.Encode(entry) // to memory
		rest = rest[n:]
	}
	n, err := w.f.Write(w.buf.Bytes())
	if err != nil {
		w.torn = n > 0 || w.torn
		w.lost += uint64(len(p))
		w.why = err
		return
	}
	w.torn = false
}

// cut is where a long piece is cut: not inside of a character, if it can be helped.
func cut(p []byte) int {
	if len(p) <= maxEntry {
		return len(p)
	}
	for n := maxEntry; n > maxEntry-utf8.UTFMax; n-- {
		if utf8.RuneStart(p[n]) {
			return n
		}
	}
	return maxEntry
}

// Lost is how many bytes of output could not be kept, and why the last of them.
func (w *Writer) Lost() (bytes uint64, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost, w.why
}

// Close closes the file.
func (w *Writer) Close() error { return w.f.Close() }
