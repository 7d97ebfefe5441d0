package container

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/huskvm/husk/internal/cgroup"
	"github.com/huskvm/husk/vmm"
)

// ownMemory is what husk's process may take besides the guest's RAM where its memory is
// limited, in bytes: its own, which is some 50 MiB, the kernel's for it, and what the
// connections of the user network hold. What files it reads is in the page cache, and is given
// back when that is needed.
const ownMemory = 256 << 20

// tasks is how many threads a machine's process may have where the host limits it at all: its
// processors', its devices', and those that wait for the host's files.
const tasks = 4096

// shares are the numbers that --cpu-shares takes; 0 is not given.
const (
	minShares = 2
	maxShares = 1 << 18
)

// setLimits says what the machine is to have. What the machine holds by itself, its RAM and
// a whole number of processors, is only a wish to the host's control groups; what they alone can
// hold is a limit.
func (r *Request) setLimits(p *Plan) error {
	if err := r.setMemory(p); err != nil {
		return err
	}
	if err := r.setCPUs(p); err != nil {
		return err
	}
	if err := r.setIO(p); err != nil {
		return err
	}
	if !p.Limits.Zero() || !p.Bounds.Zero() {
		p.Bounds.Tasks = tasks
	}
	return nil
}

func (r *Request) setMemory(p *Plan) error {
	if r.Memory == "" {
		return nil
	}
	size, err := ParseSize(r.Memory)
	if err != nil {
		return fmt.Errorf("--memory %w", err)
	}
	if size == 0 { // Docker's word for no limit
		return nil
	}
	if size < MinMemory {
		return fmt.Errorf("--memory %s: a machine has a kernel of its own, and needs at least %d MiB; a number alone is bytes: write 512m", r.Memory, MinMemory>>20)
	}
	const step = 2 << 20 // as vmm.Config has it
	if size += (step - size%step) % step; size > vmm.MaxMemory {
		return fmt.Errorf("--memory %s: a machine can have %d GiB at most", r.Memory, uint64(vmm.MaxMemory)>>30)
	}
	p.Memory = size
	p.Bounds.Memory = size + ownMemory
	return nil
}

func (r *Request) setCPUs(p *Plan) error {
	var cpus float64
	if r.CPUs != "" {
		var err error
		if cpus, err = parseCPUs(r.CPUs); err != nil {
			return fmt.Errorf("--cpus: %w", err)
		}
	}
	if r.CPUQuota != 0 {
		if cpus != 0 {
			return fmt.Errorf("--cpu-quota and --cpus say the same in two ways; leave one of them out")
		}
		period := r.CPUPeriod
		if period == 0 {
			period = 100_000
		}
		if period < 1000 || period > 1_000_000 || r.CPUQuota < 1000 {
			return fmt.Errorf("--cpu-quota %d with a period of %d: both are microseconds, the quota 1000 or more, the period 1000 to 1000000", r.CPUQuota, period)
		}
		if cpus = float64(r.CPUQuota) / float64(period); cpus > maxCPUs {
			return fmt.Errorf("--cpu-quota %d: with a period of %d that is %v processors, and a machine has %d at most", r.CPUQuota, period, cpus, maxCPUs)
		}
	} else if r.CPUPeriod != 0 {
		return fmt.Errorf("--cpu-period: it has a meaning only with --cpu-quota; --cpus says both at once")
	}
	if cpus != 0 {
		p.CPUs = int(math.Ceil(cpus))
		if float64(p.CPUs) == cpus {
			p.Bounds.CPUs = cpus
		} else {
			p.Limits.CPUs = cpus
		}
	}
	switch {
	case r.CPUShares != 0 && r.CPUWeight != 0:
		return fmt.Errorf("--cpu-shares and --cpu-weight say the same in two ways; leave one of them out")
	case r.CPUShares != 0 && (r.CPUShares < minShares || r.CPUShares > maxShares):
		return fmt.Errorf("--cpu-shares %d: give %d to %d; 1024 is what those have who ask for none", r.CPUShares, minShares, maxShares)
	case r.CPUShares != 0:
		p.Limits.Weight = cgroup.WeightOf(r.CPUShares)
	case r.CPUWeight > 10000:
		return fmt.Errorf("--cpu-weight %d: give 1 to 10000; 100 is what those have who ask for none", r.CPUWeight)
	default:
		p.Limits.Weight = r.CPUWeight
	}
	return nil
}

// setIO reads the limits of disks, PATH:RATE each.
func (r *Request) setIO(p *Plan) error {
	for _, form := range []struct {
		flag  string
		texts []string
		bytes bool
		field func(*cgroup.IO) *uint64
	}{
		{"--device-read-bps", r.ReadBPS, true, func(io *cgroup.IO) *uint64 { return &io.ReadBPS }},
		{"--device-write-bps", r.WriteBPS, true, func(io *cgroup.IO) *uint64 { return &io.WriteBPS }},
		{"--device-read-iops", r.ReadIOPS, false, func(io *cgroup.IO) *uint64 { return &io.ReadIOPS }},
		{"--device-write-iops", r.WriteIOPS, false, func(io *cgroup.IO) *uint64 { return &io.WriteIOPS }},
	} {
		for _, text := range form.texts {
			path, rate, ok := strings.Cut(text, ":")
			if !ok || !strings.HasPrefix(path, "/dev/") {
				return fmt.Errorf("%s %q: write it as PATH:RATE, as /dev/sda:10m", form.flag, text)
			}
			n, err := parseRate(rate, form.bytes)
			if err != nil {
				return fmt.Errorf("%s %q: %w", form.flag, text, err)
			}
			*form.field(p.limitOf(filepath.Clean(path))) = n
		}
	}
	if err := p.Limits.CheckIO(); err != nil {
		return fmt.Errorf("--device-read-bps and the like: %w", err)
	}
	if len(p.Limits.IO) > 0 && p.Bounds.Memory == 0 {
		// Writes that are delayed count for who made them only where memory is counted, too
		// (cgroup-v2.rst, "Writeback").
		p.Bounds.Memory = p.Memory + ownMemory
	}
	return nil
}

func parseRate(text string, bytes bool) (uint64, error) {
	n, err := ParseSize(text)
	if !bytes && err == nil && strings.Trim(text, "0123456789") != "" {
		err = fmt.Errorf("%q is not a number of requests a second", text)
	}
	if err == nil && n == 0 {
		err = fmt.Errorf("a rate of 0 would let nothing pass")
	}
	return n, err
}

// limitOf is the limit of a device, made if there is none yet.
func (p *Plan) limitOf(device string) *cgroup.IO {
	i := slices.IndexFunc(p.Limits.IO, func(io cgroup.IO) bool { return io.Device == device })
	if i < 0 {
		i = len(p.Limits.IO)
		p.Limits.IO = append(p.Limits.IO, cgroup.IO{Device: device})
	}
	return &p.Limits.IO[i]
}
