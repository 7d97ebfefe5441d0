// Package hostkernel finds the kernels that a distribution has installed.
package hostkernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Dir is where distributions put kernels.
const Dir = "/boot"

// prefix starts the file name of a kernel image; the release follows.
const prefix = "vmlinuz-"

// Variable names the kernel to boot where nothing else does.
const Variable = "HUSK_KERNEL"

// ErrNone means that there is no kernel, or none that can be read.
var ErrNone = errors.New("no kernel to boot")

// A Kernel is an installed kernel image.
type Kernel struct {
	Path    string `json:"path"`
	Release string `json:"release"` // as uname -r has it: "6.1.0-56-amd64"
	// Err is why the file cannot be read, nil if it can. Ubuntu installs kernels
	// that only root can read.
	Err error `json:"-"`
}

// List finds the kernels in dir, newest first. A dir that does not exist has none.
func List(dir string) ([]Kernel, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for kernels: %w", err)
	}
	var kernels []Kernel
	for _, e := range entries {
		release, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || release == "" {
			continue
		}
		path := filepath.Join(dir, e.Name())
		kernels = append(kernels, Kernel{Path: path, Release: release, Err: readable(path)})
	}
	slices.SortStableFunc(kernels, func(a, b Kernel) int { return CompareReleases(b.Release, a.Release) })
	return kernels, nil
}

// Default is the kernel to boot where none is named: the one that Variable names in
// the environment that getenv is of, else the newest in Dir.
func Default(getenv func(string) string) (string, error) {
	if path := getenv(Variable); path != "" {
		return path, nil
	}
	newest, err := Newest(Dir)
	if err != nil {
		return "", fmt.Errorf("%w, or set %s", err, Variable)
	}
	return newest.Path, nil
}

// Newest is the newest kernel in dir that can be read. Without one the error
// is ErrNone, and names those that cannot be read and what to do.
func Newest(dir string) (Kernel, error) {
	kernels, err := List(dir)
	if err != nil {
		return Kernel{}, fmt.Errorf("%w: %w; name one with --kernel", ErrNone, err)
	}
	var unreadable []string
	for _, k := range kernels {
		if k.Err == nil {
			return k, nil
		}
		unreadable = append(unreadable, k.Err.Error())
	}
	if unreadable == nil {
		return Kernel{}, fmt.Errorf("%w: there is no %s; name one with --kernel, or install one (Debian: linux-image-cloud-amd64)",
			ErrNone, filepath.Join(dir, prefix+"*"))
	}
	return Kernel{}, fmt.Errorf("%w: %s; name another with --kernel, or allow reading: sudo chmod a+r %s",
		ErrNone, strings.Join(unreadable, ", "), kernels[0].Path)
}

// readable tries to open a kernel image.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	return err
}

// CompareReleases orders kernel releases by age, older before newer: runs of
// digits compare as numbers, so that 6.1.0-9 is older than 6.1.0-56, and a
// release candidate is older than its release.
func CompareReleases(a, b string) int {
	for a != "" && b != "" {
		if digit(a[0]) && digit(b[0]) {
			var x, y string
			x, a = cutNumber(a)
			y, b = cutNumber(b)
			if c := compareNumbers(x, y); c != 0 {
				return c
			}
			continue
		}
		if a[0] != b[0] {
			return rank(a) - rank(b)
		}
		a, b = a[1:], b[1:]
	}
	return rank(a) - rank(b)
}

// rank orders what follows an equal beginning: "-rc1" and "~rc1" come before
// the end, and anything else after it.
func rank(rest string) int {
	switch {
	case strings.HasPrefix(rest, "-rc"), strings.HasPrefix(rest, "~"):
		return -1
	case rest == "":
		return 0
	default:
		return 1 + int(rest[0])
	}
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// cutNumber cuts the digits off the front of s, without leading zeros.
func cutNumber(s string) (number, rest string) {
	end := 0
	for end < len(s) && digit(s[end]) {
		end++
	}
	return strings.TrimLeft(s[:end], "0"), s[end:]
}

// compareNumbers compares decimal numbers of any length.
func compareNumbers(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
