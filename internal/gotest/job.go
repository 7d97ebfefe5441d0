package gotest

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

	"github.com/huskvm/husk/internal/agent"
)

// A Job is a test binary to run in a guest as it would run here: at the same path, in
// the same folder, with the same environment.
type Job struct {
	Binary string // absolute
	Args   []string
	Dir    string // absolute
	Env    []string

	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal

	Outputs []Output
}

// hostsOwn are variables that have no meaning in a guest, or do harm there: what
// loads libraries that it has not.
var hostsOwn = []string{"LD_PRELOAD", "LD_AUDIT"}

// Env is the environment for a guest's test: that of this host, but for what only
// this host can have.
func Env(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains(hostsOwn, name)
	})
}

func lookup(env []string, name, otherwise string) string {
	value := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	if !filepath.IsAbs(value) {
		return otherwise
	}
	return value
}

// etc is what Go's and C's libraries look up, where they would otherwise fail: root's
// name, its home, and localhost.
func etc(home string) map[string]string {
	return map[string]string{
		"/etc/passwd":        "root:x:0:0:root:" + home + ":/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"/etc/group":         "root:x:0:\nnogroup:x:65534:\n",
		"/etc/hosts":         "127.0.0.1 localhost\n::1 localhost\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	}
}

// Pack is all that the job needs of this host: the binary with its libraries, the
// folder, those of its outputs, and what include names.
func (j Job) Pack(limit int64, include, exclude []string) (*Bundle, error) {
	b, err := NewBundle(limit, exclude)
	if err != nil {
		return nil, err
	}
	home := lookup(j.Env, "HOME", "/root")
	b.MakeDir(home, 0o700)
	b.MakeDir(j.Dir, 0o755)
	for _, dir := range []string{"/tmp", lookup(j.Env, "TMPDIR", "/tmp")} {
		b.MakeDir(dir, 0o777|fs.ModeSticky)
	}
	for _, o := range j.Outputs {
		if !o.Dir {
			b.MakeDir(filepath.Dir(o.Path), 0o755)
			continue
		}
		b.MakeDir(o.Path, 0o755)
		if _, err := os.Stat(o.Path); o.Input && err == nil {
			include = append(include[:len(include):len(include)], o.Path)
		}
	}
	for name, text := range etc(home) {
		b.AddText(name, text)
	}
	needs, err := Needs(j.Binary, j.Env)
	if err != nil {
		return nil, err
	}
	files := slices.Concat([]string{j.Binary}, needs, include)
	if j.Dir != "/" { // a whole host is nobody's testdata
		files = append(files, j.Dir)
	}
	for _, file := range files {
		if err := b.Add(file); err != nil {
			return nil, fmt.Errorf("take files into the guest: %w", err)
		}
	}
	return b, b.Check()
}

// A Guest is where a job runs; *testvm.Guest is one.
type Guest interface {
	With(ctx context.Context, f func(context.Context, *agent.Client) error) error
	CopyOut(ctx context.Context, from, to string) error
}

// Run runs the job to its end and gives its exit code. Then its outputs are on this
// host. An error is that there is no exit code, or not all of the outputs; once the
// job runs, started has been called.
func (j Job) Run(ctx context.Context, g Guest, started func()) (code int, err error) {
	err = g.With(ctx, func(ctx context.Context, client *agent.Client) (err error) {
		started()
		code, err = client.Run(ctx, agent.Command{
			Argv: append([]string{j.Binary}, j.Args...), Dir: j.Dir, Env: j.Env,
			Stdin: j.Stdin, Stdout: j.Stdout, Stderr: j.Stderr, Signals: j.Signals,
		})
		return err
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, o := range j.Outputs {
		to := o.Path
		if info, err := os.Stat(to); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
			continue // a device, as /dev/null
		}
		if target, err := filepath.EvalSymlinks(to); err == nil {
			to = target // written through, as the test would have
		}
		err := g.CopyOut(ctx, o.Path, to)
		if err != nil && !missing(err) {
			errs = append(errs, fmt.Errorf("bring %s back from the guest: %w", o.Path, err))
		}
	}
	return code, errors.Join(errs...)
}

// missing tells that a guest has no such file. Its word for it is all there is.
func missing(err error) bool {
	return errors.Is(err, agent.ErrFiles) && strings.Contains(err.Error(), "no such file or directory")
}
