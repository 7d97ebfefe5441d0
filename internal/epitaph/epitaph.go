// Package epitaph tells what a process that has died said last.
package epitaph

import (
	"os"
	"strings"
)

// LastLine is the last line of a file that says something; of a Go panic, the first. A
// file that cannot be read says nothing.
func LastLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	last := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
		if line != "" {
			last = line
		}
	}
	return last
}
