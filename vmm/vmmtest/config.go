package vmmtest

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/huskvm/husk/internal/hostkernel"
	"github.com/huskvm/husk/internal/testvm"
	"github.com/huskvm/husk/kvm/kvmtest"
	"github.com/huskvm/husk/vmm"
)

// Config says what guest a test wants. The zero value is one processor and 512 MiB
// with the newest kernel of /boot, and an initramfs of husk's own: a first process
// that runs commands.
type Config struct {
	// Kernel is the file of the kernel to boot: a bzImage or an ELF vmlinux. Default:
	// that of VMM, else, unless there are disks, what $HUSK_KERNEL names or the
	// newest that can be read of /boot/vmlinuz-*.
	Kernel string
	// Initrds are initramfs files, unpacked one over the other. Their /init is the
	// first process then, and husk's process runs beside it. Without any, husk's is
	// the first.
	Initrds []string
	// Append is added to the kernel's command line.
	Append string

	// Modules is a folder with the kernel's modules: /lib/modules/VERSION, or one
	// that has this in it. Default: the one beside the kernel, or in /lib/modules.
	Modules string
	// Load names modules to load at the start, with those that they need.
	Load []string
	// NoAgent leaves husk's process out of the guest, as for kernels without vsock. Run,
	// Copy and CopyOut fail then.
	NoAgent bool

	// AllowPanic lets a kernel that has panicked go on, as with a crash kernel. By
	// default the guest has ended once its trace is out, also with panic=0.
	AllowPanic bool

	// Timeout is how long the guest may run. Default: ten minutes; in any case less
	// than is left until the test's deadline, so that the test, and not go test, says
	// what was waited for.
	Timeout time.Duration

	// VMM is all the rest of the machine: memory, processors, disks, networks. Its
	// Serial and Vsock are vmmtest's.
	VMM vmm.Config
}

const (
	defaultTimeout = 10 * time.Minute
	// reserve is what a test needs to end its guest and tell of it.
	reserve = 10 * time.Second
)

// timeout is how long the guest may run, if the test must end at the deadline.
func (c Config) timeout(deadline time.Time, hasDeadline bool) time.Duration {
	limit := c.Timeout
	if limit <= 0 {
		limit = defaultTimeout
	}
	if !hasDeadline {
		return limit
	}
	left := time.Until(deadline)
	return min(limit, max(left-reserve, left/2))
}

// blueprint is the guest, with what c leaves open filled in.
func (c Config) blueprint(t testing.TB) (testvm.Blueprint, error) {
	b := testvm.Blueprint{
		Kernel: c.Kernel, Initrds: c.Initrds, Modules: c.Modules, Load: c.Load, NoAgent: c.NoAgent,
		AllowPanic: c.AllowPanic, Machine: c.VMM,
	}
	if c.Append != "" {
		b.Machine.Append = c.VMM.Append + " " + c.Append
	}
	if b.Machine.KVM == "" {
		b.Machine.KVM = kvmtest.Device()
	}
	if b.Machine.Log == nil {
		b.Machine.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	var err error
	if !c.NoAgent {
		if b.Program, err = program(); err != nil {
			return b, err
		}
	}
	if c.Kernel != "" || c.VMM.Kernel.ReaderAt != nil || len(c.VMM.Disks) > 0 {
		return b, nil
	}
	b.Kernel, err = hostkernel.Default(os.Getenv)
	return b, err
}
