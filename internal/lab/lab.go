// Package lab runs commands in a machine with a complete KVM, on hosts that
// have none: QEMU's software CPU with AMD's SVM, a stock kernel with kvm_amd,
// and the host's root visible.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit/spec"
)

// The reasons for which a lab fails.
var (
	// ErrMissing says that the host lacks something; it names the package.
	ErrMissing = errors.New("the lab needs something this host has not")
	// ErrBoot says that the lab's machine did not come up.
	ErrBoot = errors.New("the lab did not come up")
	// ErrLost says that the lab's machine ended before the command did.
	ErrLost = errors.New("the lab ended before the command")
	// ErrHung says that the lab's machine hangs, and was switched off.
	ErrHung = errors.New("the lab hung before the command ended")
)

// What a lab has unless the options say otherwise.
const (
	DefaultCPUs        = 1
	DefaultMemory      = 6 << 30         // bytes; less on a host that has less
	DefaultBootTimeout = 3 * time.Minute // a busy host has been seen to take one
)

// Options are what machine the lab is.
type Options struct {
	QEMU        string        // the program, "" to find it on PATH
	Kernel      string        // a bzImage whose modules are found too, "" to find one
	CPUs        int           // 0 for DefaultCPUs
	Memory      uint64        // bytes, 0 for DefaultMemory or what the host can give
	BootTimeout time.Duration // 0 for DefaultBootTimeout

	// Awake keeps the lab's processor from halting when it has nothing to do. That
	// takes a whole processor of the host. It was meant to keep QEMU from losing
	// the interrupts that a halted one waits for, and makes that rarer.
	Awake bool

	// Shares are what the lab may write to on the host. What it writes
	// elsewhere is gone with it.
	Shares []Share

	Console io.Writer // gets the kernel's console as well; nil for none
	Notices io.Writer // gets a line about a second start; nil for none
}

// A Share is a folder of the host as the lab sees it.
type Share struct {
	Host     string // an existing folder
	Guest    string // where the lab has it, "" for the same path
	ReadOnly bool
}

// A Lab is a machine that runs. Its methods may be called by several goroutines.
type Lab struct{ m *machine }

// Available says what a lab lacks on this host, by ErrMissing, and what it would
// run on.
func Available() (qemu, kernel string, err error) {
	if qemu, err = findQEMU(""); err != nil {
		return "", "", err
	}
	kernel, err = findKernel("")
	return qemu, kernel, err
}

// Start boots a lab and waits until it takes commands. When it does not in
// time, it is started a second time, once. ctx is for the start alone.
func Start(ctx context.Context, o Options) (*Lab, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	f, err := o.files()
	if err != nil {
		return nil, err
	}
	defer f.close()

	m, err := bootMachine(ctx, o, f, quiet)
	if errors.Is(err, errHang) {
		if o.Notices != nil {
			fmt.Fprintf(o.Notices, "husk: the lab did not come up in %s; starting it again\n", o.BootTimeout)
		}
		// Should it hang again, the console shows where.
		m, err = bootMachine(ctx, o, f, verbose)
	}
	if err != nil {
		return nil, err
	}
	return &Lab{m}, nil
}

// Run runs a command as root in the lab to its end, and gives its exit code, as
// agent.Client.Run does. The whole root of the host is there.
func (l *Lab) Run(ctx context.Context, cmd agent.Command) (int, error) {
	code, err := l.m.client.Run(ctx, cmd)
	if errors.Is(err, agent.ErrSilent) {
		l.m.close()
		return 0, l.m.explain(fmt.Errorf("%w: %w", ErrHung, err))
	}
	if err != nil && ctx.Err() == nil && l.m.ended() {
		return 0, l.m.explain(ErrLost)
	}
	return code, err
}

// Close switches the lab off, whatever runs in it.
func (l *Lab) Close() error {
	l.m.close()
	return nil
}

// complete fills in what the options leave open, and checks the rest.
func (o Options) complete() (Options, error) {
	var err error
	if o.QEMU, err = findQEMU(o.QEMU); err != nil {
		return o, err
	}
	if o.Kernel, err = findKernel(o.Kernel); err != nil {
		return o, err
	}
	if o.CPUs == 0 {
		o.CPUs = DefaultCPUs
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory()
	}
	if o.BootTimeout == 0 {
		o.BootTimeout = DefaultBootTimeout
	}
	shares := make([]Share, len(o.Shares))
	for i, s := range o.Shares {
		if s.Host, err = filepath.Abs(s.Host); err != nil {
			return o, err
		}
		if s.Guest == "" {
			s.Guest = s.Host
		}
		if st, err := os.Stat(s.Host); err != nil || !st.IsDir() {
			return o, fmt.Errorf("%w: share %s: it is not a folder", ErrMissing, s.Host)
		}
		if filepath.Clean(s.Guest) == "/" {
			return o, fmt.Errorf("%w: share %s: the lab's root cannot be a share; what is written there stays in the lab", ErrMissing, s.Host)
		}
		shares[i] = s
	}
	o.Shares = shares
	return o, nil
}

// defaultMemory is DefaultMemory, or three quarters of a small host's memory:
// Linux refuses a mapping that is obviously too large.
func defaultMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return DefaultMemory
	}
	total := info.Totalram * uint64(info.Unit)
	return min(DefaultMemory, total/4*3)
}

// init is what the lab's husk-init is told.
func (o Options) init() spec.Init {
	l := &spec.Lab{Root: rootTag}
	for i, s := range o.Shares {
		l.Shares = append(l.Shares, spec.Share{Tag: shareTag(i), Path: s.Guest, ReadOnly: s.ReadOnly})
	}
	return spec.Init{Lab: l}
}
