package main

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/container"
	"github.com/huskvm/husk/internal/hostkernel"
	"github.com/huskvm/husk/internal/term"
)

// runFlags are the flags of husk run.
type runFlags struct {
	container.Request
	pullFlags

	entrypoint  string
	stopTimeout int
	pull        string
	detach      bool
	attach      []string
	detachKeys  string
	sigProxy    bool
	cidFile     string
	kernel      string
	modules     string
	accel       string
}

func (f *runFlags) define(fs *pflag.FlagSet) {
	fs.StringVar(&f.entrypoint, "entrypoint", "", "run this `PROGRAM` instead of the image's entrypoint; \"\" for none")
	startGroup(fs, "entrypoint", "The command")
	fs.StringArrayVarP(&f.Env, "env", "e", nil, "set a variable: `NAME[=VALUE]`, without VALUE to this host's; repeatable")
	fs.StringArrayVar(&f.EnvFiles, "env-file", nil, "set the variables in a `FILE`, one a line; repeatable")
	fs.StringVarP(&f.Workdir, "workdir", "w", "", "the working directory: a `PATH` in the guest")
	fs.StringVarP(&f.User, "user", "u", "", "run as `USER[:GROUP]`, names or numbers of the image's")
	fs.StringArrayVar(&f.Groups, "group-add", nil, "add a `GROUP` to the user's; repeatable")
	fs.BoolVarP(&f.Interactive, "interactive", "i", false, "give the command this standard input")
	fs.BoolVarP(&f.TTY, "tty", "t", false, "give the command a terminal")
	fs.StringArrayVarP(&f.attach, "attach", "a", nil, "be at this `STREAM` only: stdin, stdout or stderr; repeatable")
	fs.StringVar(&f.detachKeys, "detach-keys", term.DefaultDetachKeys, "leave the command running when these `KEYS` are pressed on a terminal")
	fs.BoolVar(&f.sigProxy, "sig-proxy", true, "send signals on to the command, unless it has a terminal")
	fs.StringVar(&f.StopSignal, "stop-signal", "", "what asks the command to end: `SIGNAL` (default the image's, or SIGTERM)")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 10, "how many `SECONDS` it may take then; -1 for any time")

	fs.BoolVarP(&f.detach, "detach", "d", false, "leave the machine running, and print its ID")
	startGroup(fs, "detach", "The machine")
	fs.StringVar(&f.Name, "name", "", "the machine's `NAME` (default: a random one)")
	fs.BoolVar(&f.AutoRemove, "rm", false, "remove the machine when it has ended")
	fs.StringVarP(&f.Hostname, "hostname", "h", "", "the guest's host `NAME` (default: the first 12 digits of its ID)")
	fs.StringVar(&f.Domainname, "domainname", "", "the guest's domain `NAME`")
	fs.StringArrayVarP(&f.Labels, "label", "l", nil, "a label for husk ps and husk inspect: `NAME[=VALUE]`; repeatable")
	fs.StringArrayVar(&f.LabelFiles, "label-file", nil, "the labels in a `FILE`, one a line; repeatable")
	fs.StringVar(&f.cidFile, "cidfile", "", "write the machine's ID to a new `FILE`")
	fs.DurationVar(&f.Timeout, "timeout", 0, "end the machine after this `TIME`, as 30s or 5m (default: never)")

	fs.StringArrayVarP(&f.Volumes, "volume", "v", nil, "show the guest a `VOLUME`: HOST:GUEST[:ro] of this host, or NAME:GUEST[:ro] of husk's; repeatable")
	startGroup(fs, "volume", "Files")
	fs.StringArrayVar(&f.Mounts, "mount", nil, "the same as a `LIST`: type=bind|volume|tmpfs,source=…,target=…[,readonly]; repeatable")
	fs.StringArrayVar(&f.Tmpfs, "tmpfs", nil, "a file system in the guest's memory: `PATH[:OPTIONS]`; repeatable")
	fs.BoolVar(&f.ReadOnly, "read-only", false, "let nobody write to the root")
	fs.StringVar(&f.RWSize, "rw-size", "", "keep what is written to the root on a disk of this `SIZE` (default: in the guest's memory)")
	fs.StringVar(&f.ShmSize, "shm-size", "", "the `SIZE` of /dev/shm (default 64m)")
	fs.StringArrayVar(&f.Disks, "disk", nil, "one more disk: `IMAGE`[,OPTION]... as husk boot has it; repeatable")

	fs.StringArrayVar(&f.Networks, "network", nil, "a network card on `NETWORK`: user[,hostloopback=on][,mtu=N][,net=10.0.2.0/24] (no root needed), tap=NAME[,queues=N][,vhost=on|off|auto][,mtu=N], or none; repeatable (default user)")
	startGroup(fs, "network", "Networks")
	fs.StringArrayVarP(&f.Publish, "publish", "p", nil, "publish a `PORT` of the guest: [[ADDR:][HOST]:]GUEST[/udp], or ranges; repeatable")
	fs.BoolVarP(&f.PublishAll, "publish-all", "P", false, "publish all ports that the image exposes at ports that are free")
	fs.StringArrayVar(&f.Expose, "expose", nil, "one more `PORT` for --publish-all; repeatable")
	fs.StringVar(&f.MAC, "mac-address", "", "the first network card's `ADDRESS`")
	fs.StringArrayVar(&f.DNS, "dns", nil, "ask this name server: `ADDRESS`; repeatable (default: the network's)")
	fs.StringArrayVar(&f.DNSSearch, "dns-search", nil, "look names up in this `DOMAIN`, too; . for none; repeatable")
	fs.StringArrayVar(&f.DNSOptions, "dns-option", nil, "an `OPTION` of resolv.conf(5); repeatable")
	fs.StringArrayVar(&f.AddHosts, "add-host", nil, "a line of /etc/hosts: `NAME:ADDRESS`, or NAME:host-gateway for this host; repeatable")

	fs.StringVarP(&f.Memory, "memory", "m", "", "the guest's RAM: `SIZE` in bytes, or with k, m or g (default 1g)")
	startGroup(fs, "memory", "Limits")
	fs.StringVar(&f.CPUs, "cpus", "", "`NUMBER` of processors, 1.5 for two of which it has three quarters (default 1)")
	fs.Uint64VarP(&f.CPUShares, "cpu-shares", "c", 0, "its part where processors are short, as `SHARES` of control groups' version 1: 2 to 262144")
	fs.Uint64Var(&f.CPUWeight, "cpu-weight", 0, "the same as a `WEIGHT` of version 2: 1 to 10000")
	fs.Uint64Var(&f.CPUQuota, "cpu-quota", 0, "`MICROSECONDS` of processors' time in each period")
	fs.Uint64Var(&f.CPUPeriod, "cpu-period", 0, "`MICROSECONDS` of a period (default 100000)")
	fs.StringArrayVar(&f.ReadBPS, "device-read-bps", nil, "bytes a second that are read from a disk of this host's: `PATH:RATE`; repeatable")
	fs.StringArrayVar(&f.WriteBPS, "device-write-bps", nil, "and written to it: `PATH:RATE`; repeatable")
	fs.StringArrayVar(&f.ReadIOPS, "device-read-iops", nil, "requests a second: `PATH:RATE`; repeatable")
	fs.StringArrayVar(&f.WriteIOPS, "device-write-iops", nil, "the same for writing: `PATH:RATE`; repeatable")

	fs.StringVar(&f.pull, "pull", "missing", "`WHEN` to fetch the image: missing, always, never")
	startGroup(fs, "pull", "The image")
	f.pullFlags.define(fs)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "do not show how the image is fetched")

	fs.StringVar(&f.kernel, "kernel", "", "kernel `FILE`: bzImage or ELF vmlinux (default: $"+hostkernel.Variable+", else the newest readable "+hostkernel.Dir+"/vmlinuz-*)")
	startGroup(fs, "kernel", "The kernel")
	fs.StringVar(&f.modules, "modules", "", "the `DIR` of the kernel's modules (default: beside the kernel, else /lib/modules)")
	fs.StringArrayVar(&f.Append, "append", nil, "`ARGS` added to the kernel's command line; repeatable")
	fs.StringArrayVar(&f.Sysctls, "sysctl", nil, "a setting of the guest's kernel: `NAME=VALUE`; repeatable")
	fs.StringVar(&f.accel, "accel", "auto", "`WHERE` to run: kvm (/dev/kvm), kvm:PATH for another device, lab (a software machine with KVM; slow), auto (kvm if it can boot a stock kernel, else lab)")

	for _, foreign := range container.ForeignFlags() {
		flag := fs.VarPF(foreignFlag{foreign}, foreign.Name, "", "of no meaning here")
		if foreign.Bool {
			flag.NoOptDefVal = "true"
		}
		flag.Hidden = true
	}
	// Docker has two names for these.
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "net":
			name = "network"
		case "dns-opt":
			name = "dns-option"
		}
		return pflag.NormalizedName(name)
	})
}

// A foreignFlag is one of Docker's that can only be accepted or refused.
type foreignFlag struct{ container.Foreign }

func (f foreignFlag) String() string { return "" }

func (f foreignFlag) Type() string {
	if f.Bool {
		return "bool"
	}
	return "string"
}

// Set accepts or refuses a value.
func (f foreignFlag) Set(value string) error {
	if f.Bool {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return err
		}
		value = strconv.FormatBool(on)
	}
	return f.Check(value)
}

// given completes what was asked for by what only the set of flags knows.
func (f *runFlags) given(fs *pflag.FlagSet) {
	if fs.Changed("entrypoint") {
		f.Entrypoint = &f.entrypoint
	}
	if fs.Changed("stop-timeout") {
		f.StopTimeout = &f.stopTimeout
	}
}

// endsOf says which ends of the command husk is at.
type endsOf struct{ stdin, stdout, stderr bool }

// attached reads --attach. Docker's default is all output, and with -i the input.
func (f *runFlags) attached() (endsOf, error) {
	switch {
	case f.detach && len(f.attach) > 0:
		return endsOf{}, usagef("--attach and --detach contradict each other; leave one of them out")
	case f.detach:
		return endsOf{}, nil
	case len(f.attach) == 0:
		return endsOf{f.Interactive, true, true}, nil
	}
	var e endsOf
	for _, name := range f.attach {
		switch strings.ToLower(name) {
		case "stdin":
			e.stdin, f.Interactive = true, true
		case "stdout":
			e.stdout = true
		case "stderr":
			e.stderr = true
		default:
			return e, usagef("--attach %q: must be stdin, stdout or stderr", name)
		}
	}
	return e, nil
}

// device is the KVM device that --accel names; "" for the usual one. look says that it is to be
// looked at first, and the lab taken if it will not do.
func (f *runFlags) device() (path string, look bool, err error) {
	kind, path, named := strings.Cut(f.accel, ":")
	switch {
	case f.accel == "auto", f.accel == "lab":
		return "", f.accel == "auto", nil
	case kind == "kvm" && (!named || path != ""):
		return path, false, nil
	}
	return "", false, usagef("--accel %q: must be auto, kvm, kvm:PATH or lab", f.accel)
}
