package main

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/hostkernel"
	"github.com/huskvm/husk/vmm"
)

// config turns the flags into the machine's blueprint. files are what it reads
// from; they must be closed in any case.
func (f *bootFlags) config(e *env, fs *pflag.FlagSet) (cfg vmm.Config, files openFiles, err error) {
	if cfg, err = f.withoutFiles(fs); err != nil {
		return cfg, nil, err
	}
	if err := f.findKernel(e); err != nil {
		return cfg, nil, err
	}
	switch {
	case fs.Changed("cmdline"):
		cfg.CommandLine = f.cmdline
	case f.kernel != "":
		cfg.CommandLine = vmm.DefaultCommandLine
		if f.console == "stdio" {
			// The serial port stays one: an initrd wants a console before the driver of
			// this one is loaded.
			cfg.CommandLine += " console=hvc0"
		}
	}

	if f.kernel != "" {
		kernel, closer, err := vmm.OpenSource(f.kernel)
		if err != nil {
			return cfg, files, inputError{"kernel", err}
		}
		cfg.Kernel, files = kernel, append(files, closer)
	}
	for _, list := range []struct {
		paths []string
		to    *[]boot.Source
	}{{f.initrds, &cfg.Initrds}, {f.addInitrd, &cfg.AppendInitrds}} {
		for _, path := range list.paths {
			initrd, closer, err := vmm.OpenSource(path)
			if err != nil {
				return cfg, files, inputError{"initrd", err}
			}
			*list.to, files = append(*list.to, initrd), append(files, closer)
		}
	}
	return cfg, files, cfg.Validate()
}

// withoutFiles is as much of the blueprint as follows from the flags alone.
func (f *bootFlags) withoutFiles(fs *pflag.FlagSet) (cfg vmm.Config, err error) {
	cfg.CPUs, cfg.DebugExit = f.cpus, f.debugExit
	if f.cpus < 1 { // 0 would be vmm's default
		return cfg, usagef("--cpus %d: must be 1 or more", f.cpus)
	}
	if cfg.Memory, err = vmm.ParseMemory(f.memory); err != nil {
		return cfg, inputError{"--memory", err}
	}
	if cfg.Memory == 0 {
		return cfg, usagef("--memory %s: a guest needs at least %d MiB", f.memory, vmm.MinMemory>>20)
	}
	if cfg.CPU, err = vmm.ParseCPU(f.cpu); err != nil {
		return cfg, inputError{"--cpu", err}
	}
	if cfg.Backing, err = vmm.ParseBacking(f.backing); err != nil {
		return cfg, inputError{"--memory-backing", err}
	}
	if cfg.Transport, err = vmm.ParseTransport(f.transport); err != nil {
		return cfg, inputError{"--transport", err}
	}
	for _, d := range f.disks {
		spec, err := disk.ParseSpec(d)
		if err != nil {
			return cfg, inputError{"--disk", err}
		}
		cfg.Disks = append(cfg.Disks, spec)
	}
	if cfg.Networks, err = f.parseNetworks(); err != nil {
		return cfg, err
	}
	for _, text := range f.shares {
		s, err := vmm.ParseShare(text)
		if err != nil {
			return cfg, inputError{"--share", err}
		}
		cfg.Shares = append(cfg.Shares, s)
	}
	cfg.Name = f.name
	if cfg.Name == "" && len(cfg.Disks) > 0 {
		base := filepath.Base(cfg.Disks[0].File)
		cfg.Name = strings.TrimSuffix(base, filepath.Ext(base))
	}
	cfg.Balloon = f.balloon
	if cfg.Vsock, err = parseVsock(f.vsock); err != nil {
		return cfg, inputError{"--vsock", err}
	}
	// The ends are opened later; here it counts which there are.
	cfg.Serial, cfg.Console = endOf(f.serial), endOf(f.console)
	cfg.Entropy = f.rng || len(f.disks) > 0 && !fs.Changed("rng")
	cfg.Append = strings.Join(f.added, " ")
	return cfg, nil
}

// findKernel finds the kernel to boot where no flag names one, nor a disk on which
// there may be one.
func (f *bootFlags) findKernel(e *env) error {
	if f.kernel != "" || len(f.disks) > 0 {
		return nil
	}
	path, err := hostkernel.Default(e.getenv)
	f.kernel = path
	return err
}

// endOf stands for the end of a console until that is opened.
func endOf(name string) *vmm.Serial {
	if name == "none" {
		return nil
	}
	return &vmm.Serial{}
}

// firstCID is the lowest address that a guest can have (virtio 1.2 §5.10.4).
const firstCID = 3

// parseVsock reads PATH[,cid=N]; "" is none.
func parseVsock(text string) (*vmm.Vsock, error) {
	if text == "" {
		return nil, nil
	}
	v := &vmm.Vsock{CID: firstCID}
	path, option, found := strings.Cut(text, ",")
	if v.Path = path; path == "" {
		return nil, fmt.Errorf("%q: name a path for the Unix socket", text)
	}
	if found {
		value, ok := strings.CutPrefix(option, "cid=")
		n, err := strconv.ParseUint(value, 10, 32)
		if !ok || err != nil || n < firstCID || n == math.MaxUint32 {
			return nil, fmt.Errorf("%q: %q is not cid=N, with N from %d to %d", text, option, firstCID, uint32(math.MaxUint32-1))
		}
		v.CID = uint32(n)
	}
	return v, nil
}

// parseNetworks reads --net and --publish. Ports are published by the first user
// network, which is there for that if no other is.
func (f *bootFlags) parseNetworks() ([]vmm.Network, error) {
	var networks []vmm.Network
	first := -1
	for _, text := range f.networks {
		o, err := netdev.ParseOptions(text)
		if err != nil {
			return nil, inputError{"--net", err}
		}
		if o.Kind == netdev.KindNone {
			if len(f.networks) > 1 || len(f.publish) > 0 {
				return nil, usagef("--net none: it stands for no network at all, so give no other and publish no port")
			}
			return nil, nil
		}
		if o.Kind == netdev.KindUser && first < 0 {
			first = len(networks)
		}
		networks = append(networks, vmm.Network{Options: o})
	}
	for _, text := range f.publish {
		p, err := netdev.ParsePublish(text)
		if err != nil {
			return nil, inputError{"--publish", err}
		}
		if first < 0 {
			if len(networks) > 0 {
				return nil, usagef("--publish %s: ports are published by a user network; add --net user", text)
			}
			networks, first = []vmm.Network{{Options: netdev.Options{Kind: netdev.KindUser}}}, 0
		}
		for _, other := range networks[first].Publish {
			if p.Host.Port() != 0 && p.Host == other.Host && p.Proto == other.Proto {
				return nil, usagef("--publish %s: port %d of this host is published already", text, p.Host.Port())
			}
		}
		networks[first].Publish = append(networks[first].Publish, p)
	}
	return networks, nil
}

// An inputError says which input is wrong. That is more than vmm's word for all
// such errors ("configuration") says, so it stands in its place.
type inputError struct {
	input string
	err   error
}

func (i inputError) Error() string {
	return i.input + ": " + strings.TrimPrefix(i.err.Error(), vmm.ErrConfig.Error()+": ")
}

func (i inputError) Unwrap() error { return i.err }

// labArgs are the arguments for husk in the lab: the same flags, with --accel kvm
// and with absolute paths.
func (f *bootFlags) labArgs(fs *pflag.FlagSet) ([]string, error) {
	args := []string{"boot"}
	var failed error
	absolute := func(path string) string {
		path, err := filepath.Abs(path)
		failed = errors.Join(failed, err)
		return path
	}
	fs.Visit(func(flag *pflag.Flag) {
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			switch flag.Name {
			case "accel", "kernel":
				continue
			case "initrd", "add-initrd":
				v = absolute(v)
			case "vsock":
				v = absolute(v)
			case "share":
				s, err := vmm.ParseShare(v)
				failed = errors.Join(failed, err)
				s.Path = absolute(s.Path)
				v = s.String()
			case "disk":
				v = absoluteDisk(v, absolute("."))
			case "stats":
				if v != "-" {
					v = absolute(v)
				}
			case "serial", "console":
				if path, ok := strings.CutPrefix(v, serialFile); ok {
					v = serialFile + absolute(path)
				}
			}
			args = append(args, "--"+flag.Name+"="+v)
		}
	})
	if f.kernel != "" {
		args = append(args, "--kernel="+absolute(f.kernel))
	}
	return append(args, "--accel=kvm"), failed
}

// absoluteDisk makes the file of a --disk absolute. Commas in it are written twice.
func absoluteDisk(spec, dir string) string {
	if filepath.IsAbs(spec) {
		return spec
	}
	return strings.ReplaceAll(dir, ",", ",,") + "/" + spec
}
