package machine

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The real-time signals of Linux's C libraries: the first two are taken by threads.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal reads a signal: a number, or a name with or without SIG, as "TERM", "SIGKILL",
// "RTMIN+3".
func ParseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("signal %q: numbers are 1 to %d", s, sigRTMax)
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for prefix, base := range map[string]int{"RTMIN": sigRTMin, "RTMAX": sigRTMax} {
		rest, is := strings.CutPrefix(name, prefix)
		if !is {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil { // "+3" and "-3" are numbers
				break
			}
		}
		if n += base; n >= sigRTMin && n <= sigRTMax {
			return unix.Signal(n), nil
		}
	}
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("signal %q: no such signal; names are as TERM or SIGTERM, numbers 1 to %d", s, sigRTMax)
}
