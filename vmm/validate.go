package vmm

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/huskvm/husk/vmm/cpuid"
	"github.com/huskvm/husk/vmm/memory"
)

var (
	// ErrConfig is a Config that no host could run.
	ErrConfig = errors.New("configuration")
	// ErrKVM is a host whose KVM is missing, closed to us or lacks what a
	// machine needs.
	ErrKVM = errors.New("KVM")
)

const (
	// DefaultMemory is the RAM of a machine whose Config does not say, in bytes.
	DefaultMemory = 512 * mib
	// MinMemory is the least RAM a machine may have, in bytes.
	MinMemory = 16 * mib
	// MaxMemory is the most, in bytes: KVM numbers the pages of a memory slot
	// with 31 bits. Most processors have fewer addresses; New checks that.
	MaxMemory = 8 << 40
	// MaxCPUs is the most processors a machine may have.
	MaxCPUs = 64
	// DefaultCommandLine is what husk boot starts a kernel with: its console on
	// the serial port, and a reboot at once when it panics, which ends the run.
	DefaultCommandLine = "console=ttyS0 panic=-1"

	defaultName = "husk"
	defaultKVM  = "/dev/kvm"
)

// withDefaults fills in what c leaves open.
func (c Config) withDefaults() Config {
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.Backing == "" {
		c.Backing = BackingTHP
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.Transport == "" {
		c.Transport = TransportPCI
	}
	if c.KVM == "" {
		c.KVM = defaultKVM
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports the first thing in c that no host could run, as an ErrConfig.
func (c Config) Validate() error {
	c = c.withDefaults()
	if c.Kernel.ReaderAt == nil && len(c.Disks) == 0 {
		return fmt.Errorf("%w: no kernel given, nor a disk to look for one", ErrConfig)
	}
	if _, err := ParseTransport(string(c.Transport)); err != nil {
		return err
	}
	for i, d := range c.Disks {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("%w: disk %d: %w", ErrConfig, i+1, err)
		}
		for j, other := range c.Disks[:i] {
			if d.File == other.File && (d.Writes() || other.Writes()) {
				return fmt.Errorf("%w: disks %d and %d are both %s; one would write under the other: give it once, or each with ro or snapshot=on", ErrConfig, j+1, i+1, d.File)
			}
		}
	}
	if err := c.validateNetworks(); err != nil {
		return err
	}
	if err := c.validateShares(); err != nil {
		return err
	}
	if n, most := len(c.parts()), c.Transport.maxVirtio(); n > most {
		return fmt.Errorf("%w: %d virtio devices; there are places for %d (transport %s)", ErrConfig, n, most, c.Transport)
	}
	for _, s := range c.initrds() {
		if s.ReaderAt == nil {
			return fmt.Errorf("%w: initrd %q has nothing to read from", ErrConfig, s.Name)
		}
	}
	if c.Memory < MinMemory {
		return fmt.Errorf("%w: %d bytes of memory are too few; give at least %d MiB", ErrConfig, c.Memory, MinMemory/mib)
	}
	if c.Memory > MaxMemory {
		return fmt.Errorf("%w: %d MiB of memory are more than KVM takes; give at most %d MiB", ErrConfig, c.Memory/mib, uint64(MaxMemory/mib))
	}
	if c.Memory%memory.HugePage != 0 {
		return fmt.Errorf("%w: memory of %d bytes is not a multiple of 2 MiB; use %d MiB", ErrConfig, c.Memory, (c.Memory/memory.HugePage+1)*2)
	}
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return fmt.Errorf("%w: %d processors; give 1 to %d", ErrConfig, c.CPUs, MaxCPUs)
	}
	if _, err := ParseBacking(string(c.Backing)); err != nil {
		return err
	}
	if err := c.CPU.model().Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

func (c CPU) model() cpuid.Model {
	return cpuid.Model{Base: c.Model, Add: c.Add, Remove: c.Remove}
}

func (b Backing) memory() memory.Backing {
	switch b {
	case BackingHugeTLB:
		return memory.HugeTLB
	case BackingShared:
		return memory.Shared
	default:
		return memory.THP
	}
}
