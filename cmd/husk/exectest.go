package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/gotest"
	"github.com/huskvm/husk/internal/hostkernel"
	"github.com/huskvm/husk/internal/testvm"
	"github.com/huskvm/husk/vmm"
)

// execTestFlags are the flags of husk exec-test.
type execTestFlags struct {
	kernel  string
	modules string
	load    []string
	added   []string
	memory  string
	cpus    int
	disks   []string
	include []string
	exclude []string
	maxSize string
	outputs []string
	timeout time.Duration
	accel   string
	console bool
}

func execTestVerb() verb {
	return verb{
		name:  "exec-test",
		args:  "[flags] BINARY [ARG]...",
		short: "run a test binary as root in a guest, for go test -exec",
		long: `Boots a guest, runs BINARY in it as a process of root's, and ends with its exit code. It
is for go test -exec "husk exec-test": each package's tests run in a guest of their own,
with their flags, environment, input, output and signals, as if they ran here.

In the guest there are, each at the path that it has here: BINARY, the libraries and the
loader that it needs if it is linked dynamically (cgo, -race), and the current directory
with all that is below it, which for go test is the package's. Version control's folders
are left out. More is taken along with --include: other packages' testdata, programs,
the module cache if tests read it. There is no shell, and no other program of this host.

What the test writes is gone with the guest, but for what is brought back: the files of
-test.coverprofile, -cpuprofile, -memprofile, -blockprofile, -mutexprofile, -trace and
-testlogfile, the folders of -test.gocoverdir, $GOCOVERDIR and -artifacts, what fuzzing
(-test.fuzz) adds to its cache and to testdata/fuzz, and what --out names.

The guest's kernel is silent unless the test fails: then what it said meanwhile is on
standard error, and all of its console if it panicked or never came up. That it has
reported an oops, a warning or the like is said in any case.

go test caches no results of tests that run this way. Several packages are tested at the
same time, each in a guest with memory of its own: go test -p 1 has one at a time.
Where KVM boots no stock kernel, each guest has a lab around it (--accel auto).

Exit codes:
  N    the test's own: 0 passed, 1 failed, 2 panicked or was ended by its -timeout
  122  triple fault, or KVM could not go on
  123  the guest's kernel panicked
  124  --timeout was up
  125  husk itself failed, or the guest ended before the test`,
		examples: `# The tests of all packages, in guests with the newest kernel of /boot
go test -exec "husk exec-test" ./...
# With another kernel and a module loaded, two processors, and coverage
go test -exec "husk exec-test -k bzImage --load loop -c 2" -coverprofile cover.out ./mount
# As go test does it
go test -c -o mount.test ./mount && cd mount && husk exec-test ../mount.test -test.v`,
		define: func(fs *pflag.FlagSet) runner {
			fs.SetInterspersed(false)
			f := &execTestFlags{}
			f.define(fs)
			return func(ctx context.Context, e *env, args []string) (int, error) { return f.run(ctx, e, fs, args) }
		},
	}
}

func (f *execTestFlags) define(fs *pflag.FlagSet) {
	fs.StringVarP(&f.kernel, "kernel", "k", "", "kernel `FILE`: bzImage or ELF vmlinux (default: $"+hostkernel.Variable+", else the newest readable "+hostkernel.Dir+"/vmlinuz-*)")
	fs.StringVar(&f.modules, "modules", "", "the `DIR` of the kernel's modules (default: beside the kernel, else /lib/modules)")
	fs.StringArrayVar(&f.load, "load", nil, "load a kernel `MODULE` before the test; repeatable")
	fs.StringArrayVarP(&f.added, "append", "a", nil, "`ARGS` added to the kernel's command line (\""+execTestCommandLine+"\")")
	fs.StringVarP(&f.memory, "memory", "m", "", "guest RAM: `SIZE` in MiB, or with K, M or G (default: 512M, and twice what is taken along)")
	fs.IntVarP(&f.cpus, "cpus", "c", 1, "`NUMBER` of virtual CPUs, 1 to 64")
	fs.StringArrayVarP(&f.disks, "disk", "d", nil, "a disk for the test, /dev/vda and so on: `IMAGE`[,OPTION]... as husk boot has it; repeatable")
	fs.StringArrayVar(&f.include, "include", nil, "take a file or folder along, to the same `PATH`; repeatable")
	fs.StringArrayVar(&f.exclude, "exclude", nil, "leave out of folders what a `PATTERN` matches, by its name or by its path in the folder; repeatable")
	fs.StringVar(&f.maxSize, "max-size", "256M", "the most to take along: `SIZE` in MiB, or with K, M or G")
	fs.StringArrayVar(&f.outputs, "out", nil, "bring a file or folder back, to the same `PATH`; repeatable")
	fs.DurationVar(&f.timeout, "timeout", 0, "end the guest after this `TIME` (default: never; go test -timeout ends the test)")
	fs.StringVar(&f.accel, "accel", "auto", "`WHERE` to run: kvm (/dev/kvm), lab (a software machine with KVM; slow), auto (kvm if it can boot a stock kernel, else lab)")
	fs.BoolVar(&f.console, "console", false, "show the guest's console on standard error")
}

// execTestCommandLine has the kernel tell of what went wrong, and be silent else: each
// byte on the console costs the boot time.
const execTestCommandLine = vmm.DefaultCommandLine + " loglevel=5"

// run runs a test binary here or in the lab.
func (f *execTestFlags) run(ctx context.Context, e *env, fs *pflag.FlagSet, args []string) (int, error) {
	switch {
	case len(args) == 0:
		return 0, usagef("no BINARY given; go test -exec \"husk exec-test\" gives one")
	case f.accel == "" || !containsWord("auto kvm lab", f.accel):
		return 0, usagef("--accel %q: must be one of auto, kvm, lab", f.accel)
	case f.timeout < 0:
		return 0, usagef("--timeout %v: must not be negative", f.timeout)
	}
	job, err := f.job(e, args)
	if err != nil {
		return 0, err
	}
	if f.kernel == "" {
		if f.kernel, err = hostkernel.Default(e.getenv); err != nil {
			return 0, err
		}
	}
	if f.accel != "kvm" {
		noKVM := error(nil)
		if f.accel == "auto" {
			noKVM = e.canBoot()
		}
		if f.accel == "lab" || noKVM != nil {
			return f.inLab(ctx, e, fs, job, noKVM)
		}
	}
	b, err := f.blueprint(job)
	if err != nil {
		return 0, err
	}
	t := &testRun{env: e, flags: f, job: job}
	return t.run(ctx, b)
}

// job is what is to run.
func (f *execTestFlags) job(e *env, args []string) (gotest.Job, error) {
	dir, err := os.Getwd()
	if err != nil {
		return gotest.Job{}, err
	}
	binary, err := filepath.Abs(args[0])
	if err != nil {
		return gotest.Job{}, err
	}
	job := gotest.Job{Binary: binary, Args: args[1:], Dir: dir, Env: gotest.Env(os.Environ()), Stdout: e.stdout, Stderr: e.stderr}
	job.Outputs = gotest.Outputs(job.Args, dir, e.getenv)
	for _, path := range f.outputs {
		path, err := filepath.Abs(path)
		if err != nil {
			return job, err
		}
		job.Outputs = append(job.Outputs, gotest.Output{Path: path})
	}
	return job, nil
}

// blueprint is the guest for a job.
func (f *execTestFlags) blueprint(job gotest.Job) (b testvm.Blueprint, err error) {
	limit, err := vmm.ParseMemory(f.maxSize)
	if err != nil {
		return b, inputError{"--max-size", err}
	}
	bundle, err := job.Pack(int64(limit), f.include, f.exclude)
	if errors.Is(err, gotest.ErrTooLarge) {
		return b, fmt.Errorf("%w; leave something out with --exclude PATTERN ('*': all of the folder), or allow more with --max-size", err)
	}
	if err != nil {
		return b, err
	}
	cfg := vmm.Config{CPUs: f.cpus, CommandLine: execTestCommandLine, Append: strings.Join(f.added, " "), Entropy: true}
	if f.cpus < 1 { // 0 would be vmm's default
		return b, usagef("--cpus %d: must be 1 or more", f.cpus)
	}
	cfg.Memory = vmm.DefaultMemory + roundUp(2*uint64(bundle.Size()), 2<<20)
	if f.memory != "" {
		if cfg.Memory, err = vmm.ParseMemory(f.memory); err != nil {
			return b, inputError{"--memory", err}
		}
	}
	load := f.load
	for _, d := range f.disks {
		spec, err := disk.ParseSpec(d)
		if err != nil {
			return b, inputError{"--disk", err}
		}
		cfg.Disks = append(cfg.Disks, spec)
	}
	if len(f.disks) > 0 {
		load = append([]string{"virtio_blk"}, load...)
	}
	return testvm.Blueprint{
		Kernel: f.kernel, Modules: f.modules, Load: load, Machine: cfg,
		Own: []testvm.Archive{{Name: "the test's files", Write: bundle.Write}},
	}, nil
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }
