package container

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Lookup finds a variable in an environment, as os.LookupEnv does.
type Lookup func(name string) (value string, found bool)

// Env is a command's environment: the image's variables, unless they are set otherwise by
// files, in their order, or by flags, which come last. A name without a value has the value
// that lookup finds. Where it finds none, a flag takes the variable away, the image's too, and
// a line of a file counts for nothing.
func Env(image, files, flags []string, lookup Lookup) ([]string, error) {
	var settings []string
	for _, name := range files {
		lines, err := ReadEnvFile(name, lookup)
		if err != nil {
			return nil, fmt.Errorf("--env-file %w", err)
		}
		settings = append(settings, lines...)
	}
	for _, flag := range flags {
		name, _, set := strings.Cut(flag, "=")
		if err := checkVariable(name, flag); err != nil {
			return nil, fmt.Errorf("--env %q: %w", flag, err)
		}
		if value, found := lookup(name); !set && found {
			flag = name + "=" + value
		}
		settings = append(settings, flag)
	}
	return overlay(image, settings), nil
}

func checkVariable(name, text string) error {
	switch {
	case name == "":
		return fmt.Errorf("a variable has no name; write it as NAME=VALUE, or as NAME for this host's value")
	case strings.ContainsRune(text, 0):
		return fmt.Errorf("a variable can have no NUL in it")
	}
	return nil
}

// overlay sets variables over others. A setting without a value takes the variable away.
func overlay(base, settings []string) []string {
	var names []string
	values := map[string]*string{} // nil for one that is not set
	for _, line := range append(append([]string{}, base...), settings...) {
		name, _, set := strings.Cut(line, "=")
		if name == "" {
			continue // an image's; no program could ask for it
		}
		if _, known := values[name]; !known {
			names = append(names, name)
		}
		values[name] = nil
		if set {
			values[name] = &line
		}
	}
	var env []string
	for _, name := range names {
		if line := values[name]; line != nil {
			env = append(env, *line)
		}
	}
	return env
}

// maxEnvFile bounds such a file: Linux gives a program no more (execve(2), a quarter of a
// stack of 8 MiB).
const maxEnvFile = 2 << 20

// ReadEnvFile reads the file of an --env-file: see ParseEnvFile.
func ReadEnvFile(name string, lookup Lookup) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ParseEnvFile(name, f, lookup)
}

// ParseEnvFile reads lines NAME=VALUE, where the value is all that follows, quotes and
// blanks too, and NAME, which has the value that lookup finds and is left out without one.
// A line that starts with # is a comment, blanks before a name are nothing, and so are
// empty lines. Errors begin with the file's name and the line's number.
func ParseEnvFile(file string, r io.Reader, lookup Lookup) ([]string, error) {
	lines, err := parseLines(file, r, func(name, line string, set bool) (string, bool) {
		if set {
			return line, true
		}
		value, found := lookup(name)
		return name + "=" + value, found
	})
	return lines, err
}

// parseLines reads a file of Docker's form NAME[=VALUE], a line each. take says what a line
// becomes, and whether it counts.
func parseLines(file string, r io.Reader, take func(name, line string, set bool) (string, bool)) ([]string, error) {
	var list []string
	scan := bufio.NewScanner(io.LimitReader(r, maxEnvFile+1))
	scan.Buffer(nil, maxEnvFile+2) // room for the longest line that is read
	size := 0
	for n := 1; scan.Scan(); n++ {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: "+format, append([]any{file, n}, args...)...)
		}
		b := scan.Bytes()
		if size += len(b) + 1; size > maxEnvFile {
			return nil, bad("more than %d bytes; that is no list of variables", maxEnvFile)
		}
		if n == 1 {
			b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) // a byte order mark
		}
		if !utf8.Valid(b) {
			return nil, bad("%q is not UTF-8; save the file as that", b)
		}
		line := strings.TrimLeftFunc(string(b), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		name, _, set := strings.Cut(line, "=")
		switch {
		case name == "":
			return nil, bad("%q has no name before the =", line)
		case strings.ContainsAny(name, " \t"):
			return nil, bad("the name %q has a blank in it; write NAME=VALUE, or NAME alone, without blanks", name)
		case strings.ContainsRune(line, 0):
			return nil, bad("a line can have no NUL in it")
		}
		if text, counts := take(name, line, set); counts {
			list = append(list, text)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return list, nil
}
