package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/internal/smoke"
)

// cases are those of the files, or else of the flags. What is wrong with them is a
// usageError.
func (f *smokeFlags) cases(e *env, files []string) ([]smoke.Case, error) {
	if err := f.checkValues(files); err != nil {
		return nil, err
	}
	var cases []smoke.Case
	if len(files) == 0 {
		base := smoke.Defaults()
		base.Name, base.Steps = cmp.Or(f.base.Name, "smoke"), f.base.Steps
		cases = smoke.Expand(base, f.given())
	}
	for _, file := range files {
		list, err := f.read(e, file)
		if err != nil {
			return nil, usageError{err}
		}
		for _, c := range list {
			if len(files) > 1 {
				c.Name = file + ": " + c.Name
			}
			cases = append(cases, c)
		}
	}
	if err := smoke.SameNames(cases); err != nil {
		return nil, usageError{err}
	}
	cases, err := f.chosen(cases)
	if err != nil {
		return nil, err
	}
	for i := range cases {
		if err := checkCase(cases[i]); err != nil {
			return nil, usageError{err}
		}
		if f.inLab != "" {
			cases[i].Slowness = labSlowness
		}
	}
	return cases, nil
}

// checkValues finds what no case can be made of.
func (f *smokeFlags) checkValues(files []string) error {
	given := f.flags.Changed
	if slices.Contains(f.kernels, "") { // an unset variable, more likely than a wish for the default
		return usagef("--kernel \"\": name a file, or leave the flag out")
	}
	if slices.Contains(f.base.Initrds, "") {
		return usagef("--initrd \"\": name a file, or leave the flag out")
	}
	for _, n := range f.cpus {
		if n < 1 {
			return usagef("--cpus %d: must be 1 or more", n)
		}
	}
	for name, t := range map[string]time.Duration{"timeout": f.base.Timeout, "no-output": f.base.NoOutput} {
		if given(name) && t <= 0 {
			return usagef("--%s %v: must be more than nothing", name, t)
		}
	}
	if given("cmdline") && given("append") {
		return usagef("--append adds to the default command line, which --cmdline replaces; use one of them")
	}
	for what, values := range map[string][]string{"--kernel": cleaned(f.kernels), "--memory": f.memory, "--cpus": written(f.cpus), "FILE": cleaned(files)} {
		for i, v := range values {
			if slices.Contains(values[:i], v) {
				return usagef("%s %s: it is given twice", what, v)
			}
		}
	}
	if len(files) == 0 {
		return nil
	}
	if f.base.Name != "" {
		return usagef("--name: the cases of a file have names of their own; --only chooses among them")
	}
	for _, name := range stepFlags {
		if given(name) {
			return usagef("--%s: steps by flags are of the case that flags make; the cases of a file have steps of their own", name)
		}
	}
	return nil
}

func cleaned(paths []string) (out []string) {
	for _, p := range paths {
		out = append(out, filepath.Clean(p))
	}
	return out
}

func written(numbers []int) (out []string) {
	for _, n := range numbers {
		out = append(out, fmt.Sprint(n))
	}
	return out
}

// standardInput tells whether a file of cases is that.
func standardInput(file string) bool { return file == "-" || file == "/dev/stdin" }

// read reads a file of cases.
func (f *smokeFlags) read(e *env, file string) ([]smoke.Case, error) {
	if !standardInput(file) {
		return smoke.ReadFile(file, f.given())
	}
	if f.stdin == nil {
		b, err := io.ReadAll(e.stdin)
		if err != nil {
			return nil, fmt.Errorf("cases: standard input: %w", err)
		}
		f.stdin = b
	}
	return smoke.Read(bytes.NewReader(f.stdin), "standard input", f.given())
}

// given is what goes over the files, or makes the case without one.
func (f *smokeFlags) given() smoke.Given {
	return smoke.Given{
		Kernels: f.kernels, CPUs: f.cpus, Memory: f.memory,
		Initrds: f.base.Initrds, Disks: f.base.Disks, CommandLine: f.base.CommandLine, Rest: f.put,
	}
}

// put puts flags that were given over what a case has.
func (f *smokeFlags) put(c *smoke.Case) {
	added := strings.Join(f.added, " ")
	if c.CommandLine != "" {
		c.CommandLine = boot.AddWords(c.CommandLine, added)
	} else {
		c.Append = boot.AddWords(c.Append, added)
	}
	c.Boot = slices.DeleteFunc(slices.Clone(c.Boot), func(flag string) bool {
		return slices.ContainsFunc(f.base.Boot, func(other string) bool { return flagName(other) == flagName(flag) })
	})
	c.Boot = append(c.Boot, f.base.Boot...)
	b := &f.base
	for name, set := range map[string]func(){
		"modules":    func() { c.Modules = b.Modules },
		"symbols":    func() { c.Symbols = b.Symbols },
		"expect-not": func() { c.ExpectNot = b.ExpectNot },
		"no-detect":  func() { c.NoDetect = b.NoDetect },
		"allow":      func() { c.Allow = b.Allow },
		"timeout":    func() { c.Timeout = b.Timeout },
		"no-output":  func() { c.NoOutput = b.NoOutput },
		"max-boot":   func() { c.MaxBoot = b.MaxBoot },
		"reboots":    func() { c.Reboots = b.Reboots },
		"retries":    func() { c.Retries = b.Retries },
		"retry-on":   func() { c.RetryOn = b.RetryOn },
	} {
		if f.flags.Changed(name) {
			set()
		}
	}
}

// flagName is the name in "--name=value".
func flagName(flag string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	return name
}

// findKernels finds the kernel of cases that name none and have no disk with one.
func findKernels(e *env, cases []smoke.Case) error {
	for i := range cases {
		if cases[i].Kernel == "" && len(cases[i].Disks) == 0 {
			boot := bootFlags{}
			if err := boot.findKernel(e); err != nil {
				return err
			}
			cases[i].Kernel = boot.kernel
		}
	}
	return nil
}

// chosen are the cases that --only names.
func (f *smokeFlags) chosen(cases []smoke.Case) ([]smoke.Case, error) {
	if len(f.only) == 0 {
		return cases, nil
	}
	var out []smoke.Case
	for _, c := range cases {
		for _, text := range f.only {
			matches, err := smoke.Named(c.Name, text)
			if err != nil {
				hint := ""
				if strings.HasPrefix(text, "/") {
					hint = "; with a slash in front it is a regular expression: leave that out, for any part of a name will do"
				}
				return nil, usagef("--only: %w%s", err, hint)
			}
			if matches {
				out = append(out, c)
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, usagef("--only %s: no case has that in its name; --list prints them", strings.Join(f.only, ", "))
	}
	return out, nil
}

// checkCase finds what is wrong with a case that needs no look at its files.
func checkCase(c smoke.Case) error {
	if err := c.Check(); err != nil {
		return err
	}
	for _, flag := range c.Boot {
		if !strings.HasPrefix(flag, "--") || !slices.Contains(passed, flagName(flag)) {
			return fmt.Errorf("%w %s: boot: %q is none of --%s, with its value behind \"=\"", smoke.ErrCase, c.Name, flag, strings.Join(passed, ", --"))
		}
	}
	boot := &bootFlags{}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	boot.define(fs)
	err := fs.Parse(c.BootFlags(""))
	if err == nil {
		err = boot.check(fs)
	}
	if err == nil {
		_, err = boot.withoutFiles(fs)
	}
	if err != nil {
		return fmt.Errorf("%w %s: %w", smoke.ErrCase, c.Name, err)
	}
	return nil
}
