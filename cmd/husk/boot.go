package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/hostkernel"
	"github.com/huskvm/husk/vmm"
)

// bootFlags are the flags of husk boot.
type bootFlags struct {
	kernel    string
	initrds   []string
	addInitrd []string
	added     []string
	cmdline   string
	memory    string
	cpus      int
	cpu       string
	backing   string
	serial    string
	console   string
	disks     []string
	networks  []string
	publish   []string
	shares    []string
	vsock     string
	name      string
	balloon   bool
	rng       bool
	transport string
	timeout   time.Duration
	accel     string
	onReboot  string
	debugExit bool
	dryRun    bool
	stats     string
	logLevel  string
	logFormat string
}

func bootVerb() verb {
	return verb{
		name:  "boot",
		args:  "[flags]",
		short: "boot a kernel, with its console here",
		long: `Boots a Linux kernel (bzImage or ELF vmlinux). Its serial console is this terminal, or
standard input and output where they are pipes or files.

On a terminal all keys go to the guest, but for Ctrl-A followed by
  X       end husk and the guest at once (exit code 0)
  P       press the guest's power button
  B       send a break, which Linux takes for the SysRq key
  H       list these keys
  Ctrl-A  send Ctrl-A
A serial line does not carry the window's size: run "stty rows R cols C" in the guest, or
give it a virtio console (--console stdio), which follows the window.

SIGINT, SIGTERM and SIGHUP press the guest's power button. A second one, or the first
where there is no guest yet, ends husk at once, with 128 and the signal's number as exit
code.

Exit codes:
  0    the guest powered off, or rebooted, or Ctrl-A X was pressed
  N    the value that the guest wrote to the debug-exit device (modulo 256)
  121  the guest asked for a reboot, and --on-reboot=fail
  122  triple fault, or KVM could not go on: registers and a hint are on stderr
  123  the guest's kernel panicked
  124  --timeout was up
  125  husk itself failed, wrong usage included`,
		examples: `# The newest kernel in /boot, without an initrd: it panics for want of a root, exit code 123
husk boot
# A kernel and an initrd, a quiet console
husk boot -k bzImage -i initrd.img -a "quiet"
# In CI: no longer than a minute, figures as JSON
husk boot -k bzImage -i test.cpio --timeout 1m --debug-exit --stats stats.json </dev/null
# A disk image by its own kernel, thrown away what the guest writes
husk boot -d debian.qcow2,snapshot=on -m 1G
# The same on a network, with its SSH server at port 2222 of this host
husk boot -d debian.qcow2 -m 1G -p 2222:22
# With a folder of this host; in the guest: mount -t virtiofs work /mnt
husk boot -d debian.qcow2 -m 1G --share work=$PWD
# What would be loaded where, without starting anything
husk boot -k vmlinux -m 5G -c 4 --dry-run`,
		define: func(fs *pflag.FlagSet) runner {
			f := &bootFlags{}
			f.define(fs)
			return func(ctx context.Context, e *env, args []string) (int, error) {
				if err := noArgs(args); err != nil {
					return 0, err
				}
				if err := f.check(fs); err != nil {
					return 0, err
				}
				return f.boot(ctx, e, fs)
			}
		},
	}
}

func (f *bootFlags) define(fs *pflag.FlagSet) {
	fs.StringVarP(&f.kernel, "kernel", "k", "", "kernel `FILE`: bzImage or ELF vmlinux (default, without --disk: $"+hostkernel.Variable+", else the newest readable "+hostkernel.Dir+"/vmlinuz-*)")
	fs.StringArrayVarP(&f.initrds, "initrd", "i", nil, "initramfs `FILE`; several are joined in the order given")
	fs.StringArrayVar(&f.addInitrd, "add-initrd", nil, "initramfs `FILE` joined behind the others, also behind those of a disk's own kernel; repeatable")
	fs.StringArrayVarP(&f.added, "append", "a", nil, "`ARGS` added to the kernel's command line (\""+vmm.DefaultCommandLine+"\")")
	fs.StringVar(&f.cmdline, "cmdline", "", "the `WHOLE` command line, instead")
	fs.StringVarP(&f.memory, "memory", "m", "512M", "guest RAM: `SIZE` in MiB, or with K, M or G; a multiple of 2M")
	fs.IntVarP(&f.cpus, "cpus", "c", 1, "`NUMBER` of virtual CPUs, 1 to 64")
	fs.StringVar(&f.cpu, "cpu", "host", "CPU `MODEL`: host or max-migratable, and ,+feature or ,-feature")
	fs.StringVar(&f.backing, "memory-backing", "thp", "what RAM is `MADE` of: thp (transparent huge pages), hugetlb (reserved huge pages), shared (a memfd)")
	fs.StringVar(&f.serial, "serial", "stdio", "the `END` of the serial console: stdio, file:PATH, none")
	fs.StringArrayVarP(&f.disks, "disk", "d", nil, "a disk: `IMAGE`[,format=raw|qcow2][,ro][,snapshot=on][,cache=writeback|direct|unsafe][,discard=on][,serial=TEXT][,iodepth=N]; repeatable. Without --kernel, the first one's own kernel is booted")
	fs.StringArrayVarP(&f.networks, "net", "n", nil, "a network card on `NETWORK`: user[,hostloopback=on][,mtu=N][,net=10.0.2.0/24] (no root needed), tap=NAME[,queues=N][,vhost=on|off|auto][,mtu=N], or none; each with [,mac=ADDRESS]; repeatable (default: none, or user where a port is published)")
	fs.StringArrayVarP(&f.publish, "publish", "p", nil, "publish a port of the guest: `[ADDR:]HOST:GUEST[/udp]`, with ADDR 127.0.0.1 by default, and HOST 0 for one that is free; repeatable")
	fs.StringArrayVar(&f.shares, "share", nil, "a folder of this host, or a file, that the guest can mount: `TAG=PATH`[,ro][,cache=TIME]; in the guest: mount -t virtiofs TAG /mnt. With cache=TIME, as 1s, the guest is faster and may see changes of the host that much later; repeatable")
	fs.StringVar(&f.name, "name", "", "the machine's `NAME`, from which its network addresses follow (default: that of the first disk's file, or husk)")
	fs.StringVar(&f.console, "console", "none", "the `END` of a virtio console (hvc0), which follows the window's size: stdio, file:PATH, none. With stdio, --serial is none unless given")
	fs.StringVar(&f.vsock, "vsock", "", "a socket device: `PATH`[,cid=3]. Programs connect to the Unix socket PATH and say \"CONNECT port\"; what the guest connects to at port P of the host is PATH_P, as Firecracker has it")
	fs.BoolVar(&f.balloon, "balloon", false, "give the guest a memory balloon that returns free memory to the host")
	fs.BoolVar(&f.rng, "rng", false, "give the guest a source of random numbers (default: where it has a disk)")
	fs.StringVar(&f.transport, "transport", "pci", "the `WAY` to disks and the like: pci, or mmio for kernels without PCI")
	fs.DurationVar(&f.timeout, "timeout", 0, "end the guest after this `TIME`, as 30s or 5m (default: never)")
	fs.StringVar(&f.accel, "accel", "auto", "`WHERE` to run: kvm (/dev/kvm), lab (a software machine with KVM; slow), auto (kvm if it can boot a stock kernel, else lab)")
	fs.StringVar(&f.onReboot, "on-reboot", "exit", "`WHAT` to do when the guest reboots: exit, restart, fail")
	fs.BoolVar(&f.debugExit, "debug-exit", false, "give the guest a debug-exit device: a byte written to port 0xf4 is husk's exit code")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print what would be done, and do nothing")
	fs.StringVar(&f.stats, "stats", "", "write figures about the run as JSON to `FILE`, - for stderr")
	fs.StringVar(&f.logLevel, "log-level", "warn", "what husk logs on stderr: `LEVEL` debug, info, warn or error")
	fs.StringVar(&f.logFormat, "log-format", "text", "`FORMAT` of the log: text or json")
}

// check finds mistakes in the flags that need no look at the host.
func (f *bootFlags) check(fs *pflag.FlagSet) error {
	if fs.Changed("cmdline") && fs.Changed("append") {
		return usagef("--append adds to the default command line, which --cmdline replaces; use one of them")
	}
	if fs.Changed("kernel") && f.kernel == "" { // an unset variable, more likely than a wish for the default
		return usagef("--kernel \"\": name a file, or leave the flag out")
	}
	if f.timeout < 0 {
		return usagef("--timeout %v: must not be negative", f.timeout)
	}
	for _, choice := range []struct{ flag, value, choices string }{
		{"accel", f.accel, "auto kvm lab"},
		{"on-reboot", f.onReboot, "exit restart fail"},
		{"log-level", f.logLevel, "debug info warn error"},
		{"log-format", f.logFormat, "text json"},
	} {
		if choice.value == "" || !containsWord(choice.choices, choice.value) {
			return usagef("--%s %q: must be one of %s", choice.flag, choice.value, strings.ReplaceAll(choice.choices, " ", ", "))
		}
	}
	if f.console == "stdio" && !fs.Changed("serial") {
		f.serial = "none"
	}
	for _, end := range []struct{ flag, value string }{{"serial", f.serial}, {"console", f.console}} {
		if path, isFile := strings.CutPrefix(end.value, serialFile); end.value != "stdio" && end.value != "none" && (!isFile || path == "") {
			return usagef("--%s %q: must be stdio, none or file:PATH", end.flag, end.value)
		}
	}
	if f.serial == f.console && f.serial != "none" {
		return usagef("--serial and --console cannot both be %s; give one of them another file, or none", f.serial)
	}
	return nil
}

func containsWord(words, word string) bool {
	for _, w := range strings.Fields(words) {
		if w == word {
			return true
		}
	}
	return false
}

// boot does what the flags say, here or in the lab.
func (f *bootFlags) boot(ctx context.Context, e *env, fs *pflag.FlagSet) (int, error) {
	cfg, files, err := f.config(e, fs)
	defer files.close()
	if err != nil {
		return 0, err
	}
	if f.dryRun {
		return exitOK, f.printPlan(e.stdout, cfg)
	}
	stats, err := openStatsFile(f.stats, e.stderr)
	if err != nil {
		return 0, err
	}

	var noKVM error
	if f.accel == "auto" {
		noKVM = e.canBoot()
	}
	if f.accel == "lab" || noKVM != nil {
		// A lab takes seconds to start: what it would refuse is refused here.
		if _, err := vmm.PlanOf(cfg); err != nil {
			return 0, err
		}
		if noKVM != nil {
			fmt.Fprintf(e.stderr, "husk: %v; running in the lab, which is slow (husk doctor says more)\n", noKVM)
		}
		if len(f.publish) > 0 || f.vsock != "" {
			fmt.Fprintln(e.stderr, "husk: in the lab, published ports and the vsock's socket are the lab's own: this host does not see them")
		}
		args, err := f.labArgs(fs)
		if err != nil {
			return 0, err
		}
		// The lab's locks are its own, so this host has some too.
		locks, err := lockDisks(cfg.Disks, newLogger(e.stderr, f.logLevel, f.logFormat))
		defer locks.close()
		if err != nil {
			return 0, err
		}
		return e.lab(ctx, args)
	}

	s := &session{env: e, flags: f, cfg: cfg}
	return s.run(ctx, stats)
}

// lockDisks locks the images of disks until they are closed, also after an error.
func lockDisks(disks []disk.Spec, log *slog.Logger) (locks openFiles, err error) {
	for _, spec := range disks {
		lock, err := disk.Lock(spec, log)
		if err != nil {
			return locks, err
		}
		locks = append(locks, lock)
	}
	return locks, nil
}

func (f *bootFlags) printPlan(w io.Writer, cfg vmm.Config) error {
	plan, err := vmm.PlanOf(cfg)
	if err != nil {
		return err
	}
	if f.logFormat == "json" {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(plan)
	}
	_, err = fmt.Fprint(w, plan)
	return err
}

// openFiles are files that end with the verb.
type openFiles []io.Closer

func (o openFiles) close() {
	for _, c := range o {
		_ = c.Close()
	}
}
