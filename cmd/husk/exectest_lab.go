package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/gotest"
)

// inLab runs the job by a husk in the lab, which has this host's files, and writes to
// the folders of its outputs.
func (f *execTestFlags) inLab(ctx context.Context, e *env, fs *pflag.FlagSet, job gotest.Job, noKVM error) (int, error) {
	if noKVM != nil {
		fmt.Fprintf(e.stderr, "husk: %v; running in the lab, which is slow (husk doctor says more)\n", noKVM)
	}
	// A lab takes seconds to start: what it would refuse is refused here.
	if _, err := f.blueprint(job); err != nil {
		return 0, err
	}
	args, err := f.labArgs(fs, job)
	if err != nil {
		return 0, err
	}
	return e.lab(ctx, args, labShares(job.Outputs)...)
}

// labArgs are the arguments for husk in the lab: the same flags, with --accel kvm and
// with absolute paths.
func (f *execTestFlags) labArgs(fs *pflag.FlagSet, job gotest.Job) ([]string, error) {
	args := []string{"exec-test"}
	dir := job.Dir
	absolute := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	fs.Visit(func(flag *pflag.Flag) {
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			switch flag.Name {
			case "accel", "kernel":
				continue
			case "modules", "include", "out":
				v = absolute(v)
			case "disk":
				v = absoluteDisk(v, dir)
			}
			args = append(args, "--"+flag.Name+"="+v)
		}
	})
	args = append(args, "--kernel="+absolute(f.kernel), "--accel=kvm", "--", job.Binary)
	return append(args, job.Args...), nil
}

// labShares are the folders of outputs, as far as they are there. Fuzzing makes its
// cache itself, which in the lab would be the lab's.
func labShares(outputs []gotest.Output) []string {
	var dirs []string
	for _, o := range outputs {
		dir := o.Path
		if o.Input {
			_ = os.MkdirAll(dir, 0o755) // or it will be missed, as without a lab
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			dir = filepath.Dir(dir)
		}
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() && shareable(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
