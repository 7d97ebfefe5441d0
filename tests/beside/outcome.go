package main

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An outcome is what a command did.
type outcome struct {
	Code   int    `json:"code"`
	Stdout string `json:"stdout,omitempty"`
	Stderr string `json:"stderr,omitempty"`
	// Unborn says that the runtime, and not a command, wrote to standard error: there
	// was no command.
	Unborn bool `json:"unborn,omitempty"`
}

// What differs from run to run, and what takes its place.
var varying = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\b(172\.17\.0\.\d+|10\.0\.2\.\d+)\b`), "ADDRESS"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "LONG-ID"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "ID"},
	{regexp.MustCompile(`(pipe|socket):\[\d+\]`), "$1:[N]"},
}

// steady is the outcome without what differs from run to run; of long output it has
// the sum alone.
func (o outcome) steady() outcome {
	for _, text := range []*string{&o.Stdout, &o.Stderr} {
		*text = string([]rune(*text)) // the record is JSON, which has no other bytes
		for _, v := range varying {
			*text = v.pattern.ReplaceAllString(*text, v.with)
		}
		const long = 16 << 10
		if len(*text) > long {
			*text = fmt.Sprintf("%d bytes: %x\n", len(*text), sha256.Sum256([]byte(*text)))
		}
	}
	return o
}

// differences are those between what Docker did and what husk did, one a line. What a
// runtime says of a command that it could not start is its own matter, as long as it
// says something.
func differences(docker, husk outcome) []string {
	docker, husk = docker.steady(), husk.steady()
	var list []string
	if docker.Code != husk.Code {
		list = append(list, fmt.Sprintf("exit code: %d, Docker's %d", husk.Code, docker.Code))
	}
	list = append(list, lines("stdout", docker.Stdout, husk.Stdout)...)
	if !docker.Unborn {
		return append(list, lines("stderr", docker.Stderr, husk.Stderr)...)
	}
	if husk.Stderr == "" {
		list = append(list, "stderr: nothing said of a command that did not start")
	}
	return list
}

// lines are the lines that only one of two texts has: "+" is husk's, "-" Docker's.
func lines(stream, docker, husk string) []string {
	if docker == husk {
		return nil
	}
	theirs, ours := slices.Collect(strings.Lines(docker)), slices.Collect(strings.Lines(husk))
	var list []string
	only := func(sign string, of, without []string) {
		left := slices.Clone(without)
		for _, line := range of {
			if i := slices.Index(left, line); i >= 0 {
				left = slices.Delete(left, i, i+1)
			} else {
				list = append(list, fmt.Sprintf("%s: %s%s", stream, sign, short(line)))
			}
		}
	}
	only("-", theirs, ours)
	only("+", ours, theirs)
	if len(list) == 0 {
		list = append(list, stream+": the same lines in another order")
	}
	return list
}

// short is a line as it can be shown.
func short(line string) string {
	line = strings.TrimSuffix(line, "\n")
	if quoted := strconv.Quote(line); len(quoted) != len(line)+2 {
		line = quoted
	}
	const enough = 300
	if len(line) > enough {
		line = line[:enough] + "…"
	}
	return line
}
