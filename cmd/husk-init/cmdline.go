package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/huskvm/husk/internal/guestinit/spec"
)

// prefix marks what a kernel command line has for husk-init. The kernel takes
// a name with a dot for a module's parameter, and passes over it.
const prefix = "husk."

// readCommandLine lets the kernel command line change what the demo does.
func readCommandLine(d *spec.Demo) error {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	return applyCommandLine(d, string(b))
}

func applyCommandLine(d *spec.Demo, line string) error {
	words, err := split(line, false)
	if err != nil {
		return fmt.Errorf("kernel command line: %w", err)
	}
	for _, word := range words {
		option, ok := strings.CutPrefix(word, prefix)
		if !ok {
			continue
		}
		key, value, _ := strings.Cut(option, "=")
		if err := apply(d, key, value); err != nil {
			return fmt.Errorf("kernel command line: %s%s=%s: %w", prefix, key, value, err)
		}
	}
	return nil
}

func apply(d *spec.Demo, key, value string) error {
	switch key {
	case "do":
		d.Do = spec.Action(value)
		return nil
	case "run":
		d.Do, d.Run = spec.Run, value
		return nil
	case "quiet":
		d.Quiet = value != "0"
		return nil
	case "count":
		n, err := strconv.ParseUint(value, 0, 32)
		if err != nil {
			return fmt.Errorf("not a number")
		}
		d.Count = uint32(n)
		return nil
	case "code", "marker":
		n, err := strconv.ParseUint(value, 0, 8)
		if err != nil {
			return fmt.Errorf("not a number from 0 to 255")
		}
		if key == "code" {
			d.Code = byte(n)
		} else {
			d.Marker = byte(n)
		}
		return nil
	}
	return fmt.Errorf("there is no such option")
}
