package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/huskvm/husk/internal/smoke"
)

// labSlowness is how many times longer the defaults of times are in the lab.
const labSlowness = 5

// inLabFlag tells a husk in the lab that it is there. It stands in front of all others,
// where it is a flag whatever they are.
const inLabFlag = "in-lab"

// runInLab has husk do the same in the lab, where files are where they are here.
func (f *smokeFlags) runInLab(ctx context.Context, e *env, files []string, cases []smoke.Case) (int, error) {
	outputs, err := disksInLab(cases)
	if err != nil {
		return 0, err
	}
	for _, file := range []string{f.json, f.junit, f.tap, e.summaryFile(f.github)} {
		if file != "" && file != "-" {
			outputs = append(outputs, filepath.Dir(file))
		}
	}
	if f.out != "" {
		outputs = append(outputs, f.out)
	}
	for _, file := range files {
		if info, err := os.Stat(file); !standardInput(file) && err == nil && !info.Mode().IsRegular() {
			return 0, usagef("%s: it is no regular file, and the lab cannot read it again; use - for standard input", file)
		}
	}
	if f.stdin != nil {
		again, err := readAgain(f.stdin)
		if err != nil {
			return 0, err
		}
		defer again.Close()
		e.stdin = again
	}
	return e.lab(ctx, append([]string{"smoke", "--" + inLabFlag + "=" + f.accel}, e.args...), outputs...)
}

// disksInLab are the folders of disks that cases write to: what a guest wrote elsewhere
// would be gone with the lab.
func disksInLab(cases []smoke.Case) (folders []string, err error) {
	for _, c := range cases {
		for _, flag := range c.BootFlags("") {
			image, ok := strings.CutPrefix(flag, "--disk=")
			if !ok {
				continue
			}
			path, err := diskInLab(image)
			if errors.Is(err, fs.ErrNotExist) {
				continue // the case will say so
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			if path != "" {
				folders = append(folders, filepath.Dir(path))
			}
		}
	}
	return folders, nil
}

// readAgain is a file, without a name, that gives what was read already.
func readAgain(b []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "husk-smoke-")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name())
	if _, err = f.Write(b); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
