package smoke

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Args are the flags of husk smoke that make this case alone. What they leave out has
// its default.
func (c Case) Args() []string {
	var args []string
	flag := func(name, value string) {
		if value != "" {
			args = append(args, "--"+name, value)
		}
	}
	flags := func(name string, values []string) {
		for _, v := range values {
			flag(name, v)
		}
	}
	flag("name", c.Name)
	flag("kernel", c.Kernel)
	flags("initrd", c.Initrds)
	flag("cmdline", c.CommandLine)
	flag("append", c.Append)
	if c.CPUs > 1 {
		flag("cpus", strconv.Itoa(c.CPUs))
	}
	if c.Memory != DefaultMemory {
		flag("memory", c.Memory)
	}
	flags("disk", c.Disks)
	args = append(args, c.Boot...)
	flag("modules", c.Modules)
	flags("symbols", c.Symbols)
	flags("expect-not", c.ExpectNot)
	flags("no-detect", c.NoDetect)
	flags("allow", c.Allow)
	if c.Timeout != c.slow(DefaultTimeout) && c.Timeout != 0 {
		flag("timeout", c.Timeout.String())
	}
	if c.NoOutput != c.slow(DefaultNoOutput) && c.NoOutput != 0 {
		flag("no-output", c.NoOutput.String())
	}
	if c.MaxBoot != 0 {
		flag("max-boot", c.MaxBoot.String())
	}
	if c.Reboots != DefaultReboots {
		flag("reboots", strconv.Itoa(c.Reboots))
	}
	if c.Retries != DefaultRetries {
		flag("retries", strconv.Itoa(c.Retries))
	}
	if defaults := (Case{}).withDefaults().RetryOn; len(c.RetryOn) > 0 && !slices.Equal(c.RetryOn, defaults) {
		flags("retry-on", c.RetryOn)
	}
	return append(args, stepArgs(c.Steps)...)
}

// stepArgs are the flags that make the steps, in their order.
func stepArgs(steps []Step) []string {
	var args []string
	for _, s := range steps {
		switch s.Kind {
		case Expect, Send, Run:
			text := s.Text
			if s.Kind == Send {
				text = escape(text)
			}
			args = append(args, "--"+string(s.Kind), text)
		case Sleep:
			args = append(args, "--sleep", s.For.String())
		case PowerOff:
			args = append(args, "--poweroff")
		case Exit:
			args = append(args, "--exit", strconv.Itoa(s.Code))
		}
		if s.Kind == Run {
			if s.Code != 0 {
				args = append(args, "--run-code", strconv.Itoa(s.Code))
			}
			if s.Stdout != "" {
				args = append(args, "--run-stdout", s.Stdout)
			}
			if s.Stderr != "" {
				args = append(args, "--run-stderr", s.Stderr)
			}
		}
		if s.Timeout != 0 {
			args = append(args, "--within", s.Timeout.String())
		}
	}
	return args
}

// escape writes what a flag can hardly hold as Go does: "\n", "\x03".
func escape(text string) string {
	q := strconv.Quote(text)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// Unescape reads escape's form, which --send takes.
func Unescape(text string) (string, error) {
	var out strings.Builder
	for rest := text; rest != ""; {
		c, multibyte, tail, err := strconv.UnquoteChar(rest, 0)
		if err != nil {
			return "", fmt.Errorf("%q: what follows the backslash is none of \\n \\r \\t \\\\ \\xNN and the like", text)
		}
		if c < 0x80 || multibyte {
			out.WriteRune(c)
		} else {
			out.WriteByte(byte(c))
		}
		rest = tail
	}
	return out.String(), nil
}

// Reproduce is a line for a shell that makes this case alone.
func (c Case) Reproduce(more ...string) string {
	return shellLine(append(append([]string{"husk", "smoke"}, more...), c.Args()...))
}
