// Package gotest takes the test binary of a Go package into a guest: what the
// binary needs there, what it will have written, and an initramfs with all that.
package gotest

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// An Output is a file or a folder that a test binary writes and that its caller
// wants. It need not come to be: a test that fails early writes no profile.
type Output struct {
	Path string // absolute
	Dir  bool
	// Input says that the test also reads what is in the folder before.
	Input bool
}

// fileFlags are the flags of a test binary that name a file to write (go help
// testflag; package testing). Those of outputDir are relative to that.
var fileFlags = map[string]struct{ outputDir bool }{
	"coverprofile": {true}, "cpuprofile": {true}, "memprofile": {true},
	"blockprofile": {true}, "mutexprofile": {true}, "trace": {true},
	"testlogfile": {false},
}

// CoverVariable names the folder for the coverage of programs built with -cover
// (go doc runtime/coverage).
const CoverVariable = "GOCOVERDIR"

// Outputs are what a test binary writes that runs with args in the folder dir.
// getenv is of its environment.
func Outputs(args []string, dir string, getenv func(string) string) []Output {
	flags := testFlags(args)
	absolute := func(path, base string) string {
		if filepath.IsAbs(path) {
			return filepath.Clean(path)
		}
		return filepath.Join(base, path)
	}
	outputDir := absolute(flags["outputdir"], dir)

	var list []Output
	add := func(o Output) {
		if !slices.ContainsFunc(list, func(other Output) bool { return other.Path == o.Path }) {
			list = append(list, o)
		}
	}
	for name, value := range flags {
		if f, ok := fileFlags[name]; ok && value != "" {
			base := dir
			if f.outputDir {
				base = outputDir
			}
			add(Output{Path: absolute(value, base)})
		}
	}
	if on, err := strconv.ParseBool(flags["artifacts"]); err == nil && on {
		add(Output{Path: filepath.Join(outputDir, "_artifacts"), Dir: true})
	}
	for _, folder := range []string{flags["gocoverdir"], getenv(CoverVariable)} {
		if folder != "" {
			add(Output{Path: absolute(folder, dir), Dir: true})
		}
	}
	if flags["fuzz"] != "" {
		// The input that makes a test fail goes to its seeds.
		add(Output{Path: filepath.Join(dir, "testdata", "fuzz"), Dir: true})
		if cache := flags["fuzzcachedir"]; cache != "" {
			add(Output{Path: absolute(cache, dir), Dir: true, Input: true})
		}
	}
	slices.SortFunc(list, func(a, b Output) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// testFlags are the -test.NAME=VALUE among args, with one dash or two. A value may
// also be the next argument. What a test calls its own arguments is looked at, too:
// which of them are flags only the test knows.
func testFlags(args []string) map[string]string {
	flags := map[string]string{}
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, ok := strings.CutPrefix(arg, "-test.")
		if !ok {
			name, ok = strings.CutPrefix(arg, "--test.")
		}
		if !ok {
			continue
		}
		name, value, given := strings.Cut(name, "=")
		switch {
		case given:
		case name == "artifacts": // a switch takes no argument of its own
			value = "true"
		case i+1 < len(args):
			value = args[i+1]
		}
		flags[name] = value
	}
	return flags
}
