package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/smoke"
)

// smokeFlags are the flags of husk smoke.
type smokeFlags struct {
	flags   *pflag.FlagSet
	base    smoke.Case // what flags say of every case
	kernels []string
	cpus    []int
	memory  []string
	added   []string

	only   []string
	list   bool
	jobs   int
	accel  string
	json   string
	junit  string
	tap    string
	github bool
	out    string
	// inLab is --accel of the husk outside, where this one runs in the lab; else "".
	inLab string

	stdin []byte // what was read for a file "-"
}

func (f *smokeFlags) define(fs *pflag.FlagSet) {
	f.flags = fs
	c := &f.base
	fs.StringArrayVarP(&f.kernels, "kernel", "k", nil, "kernel `FILE`, as for husk boot; several are a matrix: each is tried")
	fs.StringArrayVarP(&c.Initrds, "initrd", "i", nil, "initramfs `FILE`; several are joined in the order given")
	fs.StringArrayVarP(&f.added, "append", "a", nil, "`ARGS` added to the kernel's command line, also to that of a file's cases; all are one line, a file can have a matrix of them")
	fs.StringVar(&c.CommandLine, "cmdline", "", "the `WHOLE` command line, instead, without what husk would have added to it")
	fs.IntSliceVarP(&f.cpus, "cpus", "c", nil, "`NUMBER` of virtual CPUs (1); several, as 1,4, are a matrix")
	fs.StringSliceVarP(&f.memory, "memory", "m", nil, "guest RAM (512M): `SIZE` as for husk boot; several, as 256M,1G, are a matrix")
	fs.StringArrayVarP(&c.Disks, "disk", "d", nil, "a disk: `IMAGE` and its options, as for husk boot, but with snapshot=on unless it says otherwise; all are one machine's, a file can have a matrix of them")
	f.definePassed(fs)
	fs.StringVar(&c.Modules, "modules", "", "`DIR` with the kernel's modules, for --run (default: beside the kernel, else /lib/modules/VERSION)")
	fs.StringArrayVar(&c.Symbols, "symbols", nil, "`FILE` with the kernel's symbols, vmlinux or System.map, for backtraces (default: the kernel's own table)")

	steps := &c.Steps
	fs.Var(&stepFlag{steps, smoke.Expect, "PATTERN"}, "expect", "step: wait for `PATTERN` on the console: a text, or /regular expression/")
	fs.Var(&stepFlag{steps, smoke.Send, "TEXT"}, "send", "step: type `TEXT`; \\n and \\x03 are what they are in Go")
	fs.Var(&stepFlag{steps, smoke.Run, "LINE"}, "run", "step: run `LINE` by the guest's shell, with husk-init's help; it must end with 0")
	fs.Var(&stepFlag{steps, smoke.Sleep, "TIME"}, "sleep", "step: wait for `TIME`")
	fs.Var(&stepFlag{steps, smoke.PowerOff, "bool"}, "poweroff", "step: have the guest power off, and wait for that")
	fs.Lookup("poweroff").NoOptDefVal = "true"
	fs.Var(&stepFlag{steps, smoke.Exit, "CODE"}, "exit", "step: wait for the guest's exit `CODE` at the debug-exit device")
	fs.Var(&lastStep{steps, "within"}, "within", "`TIME` that the step before may take (default: as long as the case has)")
	fs.Var(&lastStep{steps, "code"}, "run-code", "`CODE` with which the --run before must end")
	fs.Var(&lastStep{steps, "stdout"}, "run-stdout", "`PATTERN` that the --run before must print")
	fs.Var(&lastStep{steps, "stderr"}, "run-stderr", "`PATTERN` that the --run before must print on standard error")

	fs.StringArrayVar(&c.ExpectNot, "expect-not", nil, "`PATTERN` that must never come; repeatable")
	fs.StringArrayVar(&c.NoDetect, "no-detect", nil, "switch a detector off: `KIND`; repeatable. \"--no-detect help\" lists them")
	fs.StringArrayVar(&c.Allow, "allow", nil, "what detectors pass over: `[KIND=]PATTERN` in what they have found; repeatable")
	fs.DurationVar(&c.Timeout, "timeout", smoke.DefaultTimeout, "`TIME` that an attempt may take")
	fs.DurationVar(&c.NoOutput, "no-output", smoke.DefaultNoOutput, "a guest that prints nothing for `TIME` hangs")
	fs.DurationVar(&c.MaxBoot, "max-boot", 0, "`TIME` that the boot may take, from the processors' start to the first process (default: any)")
	fs.IntVar(&c.Reboots, "reboots", smoke.DefaultReboots, "`NUMBER` of times that the guest may reboot; one more is a reboot loop")
	fs.IntVar(&c.Retries, "retries", smoke.DefaultRetries, "`NUMBER` of further attempts after a verdict of --retry-on")
	fs.StringSliceVar(&c.RetryOn, "retry-on", nil, "`VERDICTS` that another attempt follows (infrastructure)")
	fs.StringVar(&c.Name, "name", "", "the case's `NAME`")

	fs.StringArrayVar(&f.only, "only", nil, "only cases with `TEXT`, or /regular expression/, in their name; repeatable")
	fs.BoolVar(&f.list, "list", false, "print the cases, with the command for each, and try none")
	fs.IntVarP(&f.jobs, "jobs", "j", 0, "`NUMBER` of cases at the same time (default: as many as the host has processors for, counting virtual ones, and memory)")
	fs.StringVar(&f.accel, "accel", "auto", "`WHERE` to run: kvm, lab, auto, as for husk boot")
	fs.StringVar(&f.json, "json", "", "write all results as JSON to `FILE`; - is standard output, and what people read goes to standard error then")
	fs.StringVar(&f.junit, "junit", "", "write them as JUnit XML to `FILE`, or -")
	fs.StringVar(&f.tap, "tap", "", "write them as TAP to `FILE`, or -")
	fs.BoolVar(&f.github, "github", false, "print GitHub's annotations, and add to the step's summary ($GITHUB_STEP_SUMMARY)")
	fs.StringVarP(&f.out, "out", "o", "", "keep the consoles and logs of all attempts in `DIR`")
	fs.StringVar(&f.inLab, inLabFlag, "", "")
	_ = fs.MarkHidden(inLabFlag)

	startGroup(fs, "kernel", "The machine")
	startGroup(fs, "expect", "Steps, in the order given")
	startGroup(fs, "expect-not", "The verdict")
	startGroup(fs, "only", "The run")
	startGroup(fs, "json", "Results")
}

// passed are flags of husk boot that go on to it as they are.
var passed = []string{"net", "publish", "cpu", "memory-backing", "transport", "rng", "balloon", "log-level"}

// definePassed adds them, with the words that husk boot has for them.
func (f *smokeFlags) definePassed(fs *pflag.FlagSet) {
	of := pflag.NewFlagSet("", pflag.ContinueOnError)
	(&bootFlags{}).define(of)
	for _, name := range passed {
		flag := of.Lookup(name)
		fs.VarPF(&passedFlag{&f.base.Boot, flag}, name, flag.Shorthand, flag.Usage).NoOptDefVal = flag.NoOptDefVal
	}
}

// A passedFlag adds "--flag=value" to a list, if husk boot takes that.
type passedFlag struct {
	list *[]string
	flag *pflag.Flag // husk boot's
}

func (p *passedFlag) String() string { return strings.TrimPrefix(p.flag.DefValue, "[]") }
func (p *passedFlag) Type() string   { return p.flag.Value.Type() }

func (p *passedFlag) Set(value string) error {
	if err := p.flag.Value.Set(value); err != nil {
		return err
	}
	*p.list = append(*p.list, "--"+p.flag.Name+"="+value)
	return nil
}
