package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	shares, err := labShares(job.Outputs)
	if err != nil {
		return 0, err
	}
	return e.lab(ctx, args, shares...)
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

// labShares are the folders of outputs, which are made if they are not there: what the
// lab made itself would be the lab's, and gone with it.
func labShares(outputs []gotest.Output) ([]string, error) {
	var dirs []string
	for _, o := range outputs {
		dir := o.Path
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir() && !info.Mode().IsRegular():
			continue // a device, as /dev/null: nothing is brought to it
		case err == nil && info.IsDir():
		case o.Input: // a folder, which fuzzing fills
			err = os.MkdirAll(dir, 0o755)
		default:
			dir = filepath.Dir(dir)
			err = os.MkdirAll(dir, 0o755)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("output %s: %w", o.Path, err)
		}
		if !shareable(dir) {
			return nil, fmt.Errorf("output %s: the lab cannot write to the folder %s; name a file in another one", o.Path, dir)
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}
