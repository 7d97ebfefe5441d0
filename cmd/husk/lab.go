package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/lab"
	"github.com/huskvm/husk/internal/term"
	"github.com/huskvm/husk/vmm"
)

// labFlags are the flags of husk lab.
type labFlags struct {
	kernel  string
	memory  string
	cpus    int
	shares  []string
	timeout time.Duration
	console bool
}

func labVerb() verb {
	return verb{
		name:  "lab",
		args:  "[flags] [--] [CMD [ARG]...]",
		short: "run a command where KVM is complete, on any host",
		long: `Runs CMD as root in a machine that has a complete KVM (AMD's, on QEMU's software CPU),
for hosts that have none, and passes on its exit code. Without CMD it is a shell.
Everything in it is many times slower than on a processor.

The host's files are all there. What CMD writes in the current directory and in those
given with --share goes to the host; what it writes elsewhere is gone with the lab. A
current directory of / or in /dev (but for /dev/shm), /proc or /sys is not shared: the
lab has its own. There is no network but the loopback.

The lab's kernel is the one named by --kernel or $HUSK_LAB_KERNEL, or the newest with
the modules it takes in build/kernels/generic or /boot. QEMU is found on PATH.

SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 go to CMD. If it has not ended
10 seconds after SIGTERM, SIGHUP or SIGQUIT, the lab is ended.`,
		examples: `husk lab
husk lab -- ls -l /dev/kvm
# KVM tests of this folder's Go package
go test -exec "husk lab --" .`,
		define: func(fs *pflag.FlagSet) runner {
			fs.SetInterspersed(false)
			f := &labFlags{}
			fs.StringVarP(&f.kernel, "kernel", "k", "", "the lab's own kernel: a bzImage `FILE` with its modules beside it or in /lib/modules")
			fs.StringVarP(&f.memory, "memory", "m", "", "the lab's memory: `SIZE` with K, M or G, plain is MiB (default 6G, or what the host can give)")
			fs.IntVarP(&f.cpus, "cpus", "c", lab.DefaultCPUs, "the lab's processors")
			fs.StringArrayVar(&f.shares, "share", nil, "a `DIR` of the host to write to; may be given more than once")
			fs.DurationVar(&f.timeout, "timeout", 0, "end CMD after this long, with exit code 124 (default: never)")
			fs.BoolVar(&f.console, "console", false, "show the lab's kernel messages on standard error")
			return func(ctx context.Context, e *env, args []string) (int, error) { return f.run(ctx, e, args) }
		},
	}
}

// run runs a command in a lab that is as the flags say.
func (f *labFlags) run(ctx context.Context, e *env, args []string) (int, error) {
	o := lab.Options{Kernel: f.kernel, CPUs: f.cpus}
	if f.cpus < 1 {
		return 0, usagef("--cpus %d: at least 1 is needed", f.cpus)
	}
	if f.timeout < 0 {
		return 0, usagef("--timeout %v: must not be negative", f.timeout)
	}
	if f.memory != "" {
		var err error
		if o.Memory, err = vmm.ParseMemory(f.memory); err != nil {
			return 0, usagef("--memory: %w", err)
		}
	}
	if f.console {
		o.Console = e.stderr
	}
	for _, dir := range f.shares {
		o.Shares = append(o.Shares, lab.Share{Host: dir})
	}
	if len(args) == 0 {
		shell := "/bin/sh"
		if s := e.getenv("SHELL"); s != "" {
			shell = s
		}
		args = []string{shell}
	}
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, errLabTimeout)
		defer cancel()
	}
	code, err := runInLab(ctx, e, o, args)
	if errors.Is(err, errLabTimeout) {
		fmt.Fprintf(e.stderr, "husk: lab: %s had not ended after %s\n", args[0], f.timeout)
		return exitTimeout, nil
	}
	return code, err
}

var errLabTimeout = errors.New("the time is up")

// huskInLab runs husk itself in the lab. outputs are folders that are shared, and so are
// those of the files that its arguments have it write; husk smoke's outputs are all there
// are.
func huskInLab(ctx context.Context, e *env, args, outputs []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	o := lab.Options{}
	for _, dir := range outputs {
		if dir, err = filepath.Abs(dir); err != nil {
			return 0, err
		}
		if shareable(dir) {
			o.Shares = append(o.Shares, lab.Share{Host: dir})
		}
	}
	for _, arg := range args {
		if arg == "--" || args[0] == "smoke" { // what follows is a command's, or has other meanings
			break
		}
		path, ok := strings.CutPrefix(arg, "--stats=")
		for _, flag := range []string{"--serial=", "--console="} {
			if !ok {
				path, ok = strings.CutPrefix(arg, flag+serialFile)
			}
		}
		if d, isDisk := strings.CutPrefix(arg, "--disk="); isDisk {
			if path, err = diskInLab(d); err != nil {
				return 0, err
			}
			ok = path != ""
		}
		if text, isShare := strings.CutPrefix(arg, "--share="); isShare {
			dir, err := shareInLab(text)
			if err != nil {
				return 0, err
			}
			if dir != "" {
				o.Shares = append(o.Shares, lab.Share{Host: dir})
			}
		}
		if dir := filepath.Dir(path); ok && filepath.IsAbs(path) && shareable(dir) {
			o.Shares = append(o.Shares, lab.Share{Host: dir})
		}
	}
	return runInLab(ctx, e, o, append([]string{self}, args...))
}

// diskInLab is the file of a --disk that the lab must be able to write to, or "". What
// a guest there wrote to a file that is not shared would be gone with the lab.
func diskInLab(text string) (string, error) {
	spec, err := disk.ParseSpec(text)
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(spec.File)
	if err != nil {
		return "", fmt.Errorf("disk: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("disk: %w", err)
	}
	switch {
	case info.Mode()&os.ModeDevice != 0:
		return "", fmt.Errorf("disk %s: the lab has none of this host's devices; copy it into a file, or use --accel kvm", spec.File)
	case !spec.Writes():
		return "", nil
	case !shareable(filepath.Dir(path)):
		return "", fmt.Errorf("disk %s: the lab cannot write to the folder %s; move the image, or add snapshot=on or ro", spec.File, filepath.Dir(path))
	}
	return path, nil
}

// shareInLab is the folder of a --share that the lab must be able to write to, or "".
func shareInLab(text string) (string, error) {
	s, err := vmm.ParseShare(text)
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(s.Path)
	if err != nil {
		return "", fmt.Errorf("share: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("share: %w", err)
	}
	if !info.IsDir() {
		path = filepath.Dir(path)
	}
	switch {
	case s.ReadOnly:
		return "", nil
	case !shareable(path):
		return "", fmt.Errorf("share %s: the lab cannot write to the folder %s; share another, or add ro", s.Tag, path)
	}
	return path, nil
}

// shareable tells whether the lab can write to a folder of the host: not to its
// root, nor to those where the lab has its own kernel's files.
func shareable(dir string) bool {
	for _, own := range []string{"/dev", "/proc", "/sys"} {
		if dir == own || strings.HasPrefix(dir, own+"/") && !strings.HasPrefix(dir, "/dev/shm") {
			return false
		}
	}
	return dir != "/"
}

// runInLab boots a lab, with the current directory shared, and runs a command
// in that directory with husk's own environment and files.
func runInLab(ctx context.Context, e *env, o lab.Options, argv []string) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	if shareable(dir) {
		o.Shares = append([]lab.Share{{Host: dir}}, o.Shares...)
	}
	o.Notices = e.stderr

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	l, sig, err := startLab(ctx, o, signals)
	if err != nil {
		return 0, err
	}
	if sig != 0 {
		return 128 + int(sig), nil
	}
	defer l.Close()

	ctx, forwarded, stop := insist(ctx, signals)
	defer stop()
	in, err := term.NewInput(e.stdin)
	if err != nil {
		return 0, fmt.Errorf("standard input: %w", err)
	}
	defer in.Close()
	cmd := agent.Command{
		Argv: argv, Dir: dir, Env: os.Environ(),
		Stdin: in, Stdout: e.stdout, Stderr: e.stderr, Signals: forwarded,
	}
	if out, ok := e.stdout.(*os.File); ok && term.IsTerminal(e.stdin) && term.IsTerminal(out) {
		return runOnTerminal(ctx, e.stdin, l, cmd)
	}
	code, err := l.Run(ctx, cmd)
	if ending := new(stubborn); errors.As(err, ending) {
		fmt.Fprintf(e.stderr, "husk: lab: %v\n", err)
		return 128 + int(ending.signal), nil
	}
	return code, err
}

// patience is how long a command that was told to end may take until the lab
// is ended around it: what runs there can hang beyond the reach of signals.
const patience = 10 * time.Second

// stubborn is a command that did not end by a signal.
type stubborn struct{ signal syscall.Signal }

func (s stubborn) Error() string {
	return fmt.Sprintf("the command did not end by %v within %v; its machine was ended", s.signal, patience)
}

// insist forwards signals, and ends the context when a command that was told to
// terminate is still there after patience.
func insist(ctx context.Context, signals <-chan os.Signal) (context.Context, <-chan os.Signal, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	forwarded := make(chan os.Signal, cap(signals))
	go func() {
		var over <-chan time.Time
		var last syscall.Signal
		for {
			select {
			case <-ctx.Done():
				return
			case <-over:
				cancel(stubborn{last})
				return
			case sig := <-signals:
				if sig == syscall.SIGTERM || sig == syscall.SIGHUP || sig == syscall.SIGQUIT {
					last, _ = sig.(syscall.Signal)
					over = time.After(patience)
				}
				select {
				case forwarded <- sig:
				case <-ctx.Done():
				}
			}
		}
	}()
	return ctx, forwarded, func() { cancel(nil) }
}

// startLab boots a lab unless a signal comes first, which it returns then.
func startLab(ctx context.Context, o lab.Options, signals <-chan os.Signal) (*lab.Lab, syscall.Signal, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type started struct {
		lab *lab.Lab
		err error
	}
	result := make(chan started, 1)
	go func() {
		l, err := lab.Start(ctx, o)
		result <- started{l, err}
	}()
	select {
	case r := <-result:
		return r.lab, 0, r.err
	case sig := <-signals:
		cancel()
		if r := <-result; r.err == nil {
			_ = r.lab.Close()
		}
		n, _ := sig.(syscall.Signal)
		return nil, n, nil
	}
}

// runOnTerminal runs a command on a terminal of its own in the lab, which is
// this one as far as it can tell.
func runOnTerminal(ctx context.Context, f *os.File, l *lab.Lab, cmd agent.Command) (int, error) {
	terminal, err := term.MakeRaw(f, guardName)
	if err != nil {
		return 0, err
	}
	defer func() { _ = terminal.Restore() }()

	var unfollow func()
	cmd.Size, cmd.Resizes, unfollow = followWindow(ctx, f)
	defer unfollow()
	cmd.TTY = true
	return l.Run(ctx, cmd)
}
