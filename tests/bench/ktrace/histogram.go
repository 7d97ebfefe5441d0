package ktrace

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Count is how often an event came with some values of the fields that were
// asked for, in their order.
type Count struct {
	Keys []uint64
	N    uint64
}

// bin is a line of a hist file: { port: 1016, rw: 1 } hitcount: 42
var bin = regexp.MustCompile(`^\{(.*)\} hitcount: *(\d+)`)

// parseHistogram reads a hist file. Counts that the kernel had no room for are
// an error: a sum without them would be wrong.
func parseHistogram(text string) ([]Count, error) {
	var counts []Count
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if dropped, ok := strings.CutPrefix(line, "Dropped:"); ok && strings.TrimSpace(dropped) != "0" {
			return nil, fmt.Errorf("%w: the kernel dropped %s counts", ErrUnavailable, strings.TrimSpace(dropped))
		}
		m := bin.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		var c Count
		for _, field := range strings.Split(m[1], ",") {
			_, value, _ := strings.Cut(field, ":")
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%w: hist line %q: %w", ErrUnavailable, line, err)
			}
			c.Keys = append(c.Keys, n)
		}
		n, err := strconv.ParseUint(m[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: hist line %q: %w", ErrUnavailable, line, err)
		}
		c.N = n
		counts = append(counts, c)
	}
	return counts, nil
}
