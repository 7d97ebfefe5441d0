package ksym

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxLine bounds a line of a System.map, in bytes: names have at most 512.
const maxLine = 4096

// ParseSystemMap reads what nm prints: address, type and name on each line. That is
// also the form of /proc/kallsyms, whose modules are left out.
func ParseSystemMap(r io.Reader) (*Table, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var symbols []Symbol
	hidden := 0
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.Contains(line, "The real System.map is in") {
			return nil, fmt.Errorf("%w: it is Debian's note: %s; install that package, or leave this file out: the kernel itself carries its symbols",
				ErrNoSymbols, strings.TrimSpace(line[strings.Index(line, "The real"):]))
		}
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) < 3 || len(words[1]) != 1 {
			return nil, fmt.Errorf("%w: line %d is not an address, a type and a name", ErrNoSymbols, n)
		}
		addr, err := strconv.ParseUint(words[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d does not start with an address", ErrNoSymbols, n)
		}
		if addr == 0 {
			hidden++
		}
		if len(words) == 3 { // a fourth word is the module's name
			symbols = append(symbols, Symbol{Name: words[2], Addr: addr, Type: words[1][0]})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSymbols, err)
	}
	if hidden > minSymbols && hidden == len(symbols) {
		return nil, fmt.Errorf("%w: all addresses are 0, as /proc/kallsyms has them for those who may not read it", ErrNoSymbols)
	}
	return newTable(symbols)
}
