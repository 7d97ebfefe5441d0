package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/vmm"
)

// A statsReport is what --stats writes.
type statsReport struct {
	ExitCode int         `json:"exit_code"`
	Error    string      `json:"error,omitempty"` // what made husk fail
	Result   *vmm.Result `json:"result,omitempty"`
	vmm.Stats
}

// report is what the session has to tell, however far it came.
func (s *session) report(code int, err error) statsReport {
	r := statsReport{ExitCode: code, Result: s.result, Stats: s.stats}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// A statsFile is where a report goes. The zero value is nowhere.
type statsFile struct {
	path   string    // "" where w is used
	direct bool      // write into what is there, instead of replacing it
	w      io.Writer // nil for nowhere
}

// openStatsFile makes sure, as far as that can be known before, that the report
// can be written in the end: a boot may be long. "" is nowhere, and "-" is stderr.
func openStatsFile(path string, stderr io.Writer) (statsFile, error) {
	switch path {
	case "":
		return statsFile{}, nil
	case "-":
		return statsFile{w: stderr}, nil
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return statsFile{}, fmt.Errorf("--stats %s: is a directory; name a file in it", path)
		}
		// A device, a pipe or a link: a new file in its place would destroy it.
		return statsFile{path: path, direct: true}, nil
	}
	dir := filepath.Dir(path)
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return statsFile{}, fmt.Errorf("--stats %s: %w; make it a directory that can be written to",
			path, &fs.PathError{Op: "write to", Path: dir, Err: err})
	}
	return statsFile{path: path}, nil
}

// writeBefore writes the report. When ctx has ended, or ends, it does not wait
// for long: what is written to may be stuck.
func (s statsFile) writeBefore(ctx context.Context, r statsReport) error {
	written := make(chan error, 1)
	go func() { written <- s.write(r) }()
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-written:
		return err
	case <-time.After(lastOutput):
		return fmt.Errorf("--stats %s: not written: nobody has read them for %v", cmp.Or(s.path, "-"), lastOutput)
	}
}

// write writes the report. A reader of the file sees all of it or nothing.
func (s statsFile) write(r statsReport) (err error) {
	if s.path == "" && s.w == nil {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("--stats: %w", err)
	}
	text = append(text, '\n')
	switch {
	case s.w != nil:
		_, err = s.w.Write(text)
	case s.direct:
		var f *os.File
		if f, err = create(s.path); err == nil {
			_, err = f.Write(text)
			err = errors.Join(err, f.Close())
		}
	default:
		draft := filepath.Join(filepath.Dir(s.path), fmt.Sprintf(".%s.%d", filepath.Base(s.path), os.Getpid()))
		if err = os.WriteFile(draft, text, 0o666); err == nil {
			err = os.Rename(draft, s.path)
		}
		if err != nil {
			_ = os.Remove(draft)
		}
	}
	if err != nil {
		return fmt.Errorf("--stats: %w", err)
	}
	return nil
}
