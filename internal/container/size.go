package container

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseSize reads an amount of bytes as Docker has it: a number, with a fraction or not, and
// b, k, m, g, t or p, each a 1024 times the one before; "64m", "1.5g", "64MiB", "64 MB". A
// number alone is bytes.
func ParseSize(text string) (uint64, error) {
	bad := func() (uint64, error) {
		return 0, fmt.Errorf("%q is not an amount of bytes; write it as 512m or 1.5g", text)
	}
	end := strings.LastIndexAny(text, "0123456789.") + 1
	number, unit := text[:end], strings.ToLower(strings.TrimPrefix(text[end:], " "))
	for _, c := range []byte(number) { // ParseFloat takes more
		if (c < '0' || c > '9') && c != '.' {
			return bad()
		}
	}
	size, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return bad()
	}
	if unit != "" && unit != "b" {
		power := strings.IndexByte("bkmgtp", unit[0])
		if rest := unit[1:]; power < 1 || rest != "" && rest != "b" && rest != "ib" {
			return bad()
		}
		size *= math.Pow(1024, float64(power))
	}
	if size > math.MaxInt64/2 {
		return bad()
	}
	return uint64(size), nil
}

// The numbers of processors that --cpus takes: the least is what the kernel holds a
// process to, the most are what a machine can have.
const (
	minCPUs = 0.01
	maxCPUs = 64
)

// parseCPUs reads a number of processors; 0 is no limit.
func parseCPUs(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n != 0 && !(n >= minCPUs && n <= maxCPUs) {
		return 0, fmt.Errorf("%q is not a number of processors; give one from %v to %d, as 2 or 0.5", text, minCPUs, maxCPUs)
	}
	return n, nil
}
