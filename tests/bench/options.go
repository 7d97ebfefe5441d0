package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/tests/bench/load"
)

// options are the flags.
type options struct {
	programs map[string]*string // by the flag's name; "" is not there
	kernel   string
	vmlinux  string   // "" is not there
	only     []string // parts of monitors' names; empty for all
	what     []string
	loadTime time.Duration
	rounds   int
	warmup   int
	limit    time.Duration
	json     string
	where    string
	inLab    bool
}

// What can be measured.
const (
	whatBoot = "boot"
	whatDisk = string(load.Disk)
	whatNet  = string(load.Net)
)

func (o *options) measures(what string) bool { return slices.Contains(o.what, what) }

// parse reads the flags, and finds what they leave open.
func parse(args []string) (*options, error) {
	o := &options{programs: map[string]*string{}}
	fs := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	for _, c := range commands {
		o.programs[c.flag] = fs.String(c.flag, "", "`PATH` of "+c.file+" (default: bin/"+c.file+", else the one on PATH)")
	}
	fs.StringVarP(&o.kernel, "kernel", "k", "build/kernels/cloud/vmlinuz", "the bzImage that all boot")
	fs.StringVar(&o.vmlinux, "vmlinux", "", "the same kernel as an ELF file (default: vmlinux beside it; tests/vmlinux makes one)")
	fs.StringSliceVar(&o.only, "only", nil, "measure only monitors with one of these `WORDS` in their names: husk,microvm")
	fs.StringSliceVar(&o.what, "what", []string{whatBoot, whatDisk, whatNet}, "`PARTS` to measure")
	fs.DurationVar(&o.loadTime, "load-time", 2*time.Second, "how long each load of disk and network takes")
	fs.IntVar(&o.rounds, "rounds", 3, "how often each monitor boots; every round has its own random order")
	fs.IntVar(&o.warmup, "warmup", 1, "rounds before them that do not count, for files to be read")
	fs.DurationVar(&o.limit, "timeout", 2*time.Minute, "how long one boot may take")
	fs.StringVar(&o.json, "json", "", "write every sample to `FILE`; - for standard output, instead of the table")
	fs.StringVar(&o.where, "where", "auto", "where to measure: `here`, lab, or auto: here if this host's KVM boots a stock kernel")
	fs.BoolVar(&o.inLab, "in-lab", false, "say that here is the lab")
	if err := fs.MarkHidden("in-lab"); err != nil {
		return nil, err
	}
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; see --help", fs.Arg(0))
	case o.rounds < 1 || o.warmup < 0:
		return nil, errors.New("--rounds must be 1 or more, and --warmup 0 or more")
	case o.where != "auto" && o.where != "here" && o.where != "lab":
		return nil, fmt.Errorf("--where %q: must be auto, here or lab", o.where)
	}
	for _, w := range o.what {
		if w != whatBoot && w != whatDisk && w != whatNet {
			return nil, fmt.Errorf("--what %q: must be some of boot,disk,net", w)
		}
	}
	if len(o.what) == 0 || o.loadTime < 10*time.Millisecond {
		return nil, errors.New("--what must name something, and --load-time be 10ms or more")
	}
	return o, o.find()
}

// find makes every path absolute, and empty that of what is not there.
func (o *options) find() error {
	var err error
	if o.kernel, err = filepath.Abs(o.kernel); err != nil {
		return err
	}
	if _, err := os.Stat(o.kernel); err != nil {
		return fmt.Errorf("kernel: %w; fetch one with tests/fetch-kernels cloud, or name one with --kernel", err)
	}
	if o.vmlinux == "" {
		o.vmlinux = filepath.Join(filepath.Dir(o.kernel), "vmlinux")
		if _, err := os.Stat(o.vmlinux); err != nil {
			o.vmlinux = ""
		}
	} else if o.vmlinux, err = filepath.Abs(o.vmlinux); err != nil {
		return err
	}
	for _, c := range commands {
		path := o.programs[c.flag]
		given := *path != ""
		if !given {
			*path = filepath.Join("bin", c.file)
			if _, err := os.Stat(*path); err != nil {
				*path, _ = exec.LookPath(c.file)
			}
		}
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
		if _, err := exec.LookPath(*path); err != nil {
			return fmt.Errorf("--%s: %w", c.flag, err)
		}
	}
	if *o.programs[nameHusk] == "" {
		return errors.New("no bin/husk; build it with make build, or name one with --husk")
	}
	return nil
}
