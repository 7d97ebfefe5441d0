package smoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/vmm"
)

// A Progress is told how cases go, by several goroutines at a time.
type Progress interface {
	CaseStarted(name string)
	StageReached(name, stage string, at time.Duration)
	CaseDone(c *result.Case)
}

// A Runner tries cases.
type Runner struct {
	Launch   Launch
	Progress Progress
	// Jobs is how many cases run at the same time at most; 0 for one for each of the
	// host's processors. Less run where the guests' memory would be more than the
	// host has.
	Jobs int
	// Keep is a folder for the files of every attempt; "" to keep none.
	Keep string
	// Repeat are the flags, besides a case's own, with which to try it again.
	Repeat []string
}

// Run tries the cases and returns what came of them, in their order. When ctx ends,
// those that run are ended, and the rest is not begun. An error is one of the files to
// keep; the results are whole all the same.
func (r *Runner) Run(ctx context.Context, cases []Case) ([]result.Case, error) {
	scratch, err := os.MkdirTemp("", "husk-smoke-")
	if err != nil {
		return nil, fmt.Errorf("a folder for the cases: %w", err)
	}
	defer os.RemoveAll(scratch)

	results := make([]result.Case, len(cases))
	failed := make([]error, len(cases))
	room := newRoom(r.Jobs)
	var running sync.WaitGroup
	for i, c := range cases {
		c = c.withDefaults()
		leave, err := room.admit(ctx, c.needs())
		if err != nil {
			results[i] = c.result()
			results[i].Verdict, results[i].Reproduce = result.Skipped, c.Reproduce(r.Repeat...)
			r.Progress.CaseDone(&results[i])
			continue
		}
		running.Go(func() {
			defer leave()
			number := fmt.Sprintf("%0*d", len(fmt.Sprint(len(cases))), i+1)
			results[i], failed[i] = r.try(ctx, c, scratch, number)
			r.Progress.CaseDone(&results[i])
		})
	}
	running.Wait()
	return results, errors.Join(failed...)
}

// result is the case's result before it was tried.
func (c *Case) result() result.Case {
	memory, _ := vmm.ParseMemory(c.Memory)
	return result.Case{Name: c.Name, File: c.File, Line: c.Line, Machine: result.Machine{
		Kernel: c.Kernel, Initrds: c.Initrds, Append: c.Append + c.CommandLine, CPUs: c.CPUs, Memory: memory, Disks: c.Disks,
	}}
}

// try makes attempts at a case until one has a verdict that no other follows.
func (r *Runner) try(ctx context.Context, c Case, scratch, number string) (result.Case, error) {
	out := c.result()
	out.Reproduce = c.Reproduce(r.Repeat...)
	var failed []error
	for n := 1; ; n++ {
		r.Progress.CaseStarted(c.Name)
		attempt, err := r.attempt(ctx, &c, fmt.Sprintf("%s/%s.%d", scratch, number, n), number, n)
		failed = append(failed, err)
		out.Attempts, out.Verdict = append(out.Attempts, attempt), attempt.Verdict
		again := n <= c.Retries && slices.Contains(c.RetryOn, string(attempt.Verdict)) && ctx.Err() == nil
		if !again {
			out.Flaky = attempt.Verdict == result.Pass && n > 1
			return out, errors.Join(failed...)
		}
	}
}

// attempt makes one, in a folder of its own.
func (r *Runner) attempt(ctx context.Context, c *Case, dir, number string, n int) (result.Attempt, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return result.Attempt{Verdict: result.Infrastructure, Reason: err.Error(), Started: time.Now()}, nil
	}
	defer os.RemoveAll(dir)
	a, err := try(ctx, c, r.Launch, dir, r.Keep != "", func(stage string, at time.Duration) { r.Progress.StageReached(c.Name, stage, at) })
	if r.Keep == "" {
		return a, nil
	}
	if a.Dir, err = keep(dir, r.Keep, number+"-"+fileName(c.Name), n, err); err != nil {
		err = fmt.Errorf("%s: its files: %w", c.Name, err)
	}
	return a, err
}

// keep moves an attempt's files for people to where they are kept. failed is why they
// may not be whole.
func keep(dir, folder, name string, n int, failed error) (string, error) {
	to := filepath.Join(folder, name)
	if n > 1 {
		to = fmt.Sprintf("%s.attempt%d", to, n)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", errors.Join(failed, err)
	}
	for _, file := range []string{consoleFile, stampedFile, huskFile} {
		failed = errors.Join(failed, move(filepath.Join(dir, file), filepath.Join(to, file)))
	}
	return to, failed
}

// move moves a file, if it is there, also to another file system.
func move(from, to string) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// fileName is a case's name as part of a folder's.
func fileName(name string) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_.=,+", r):
			return r
		}
		return '_'
	}, name)
	const most = 120
	return safe[:min(len(safe), most)]
}
