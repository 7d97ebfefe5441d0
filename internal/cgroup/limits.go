package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits are what the host lets a process have, by a control group. Zero is no limit.
type Limits struct {
	CPUs   float64 `json:"cpus,omitempty"`       // processors' worth of time: cpu.max
	Weight uint64  `json:"cpu_weight,omitempty"` // 1 to 10000, 100 for who has none: cpu.weight
	Memory uint64  `json:"memory,omitempty"`     // bytes, all that the process has: memory.max
	Tasks  uint64  `json:"tasks,omitempty"`      // threads: pids.max
	IO     []IO    `json:"io,omitempty"`         // io.max
}

// An IO is a limit on one of the host's disks, per second.
type IO struct {
	Device    string `json:"device"` // a path
	ReadBPS   uint64 `json:"read_bps,omitempty"`
	WriteBPS  uint64 `json:"write_bps,omitempty"`
	ReadIOPS  uint64 `json:"read_iops,omitempty"`
	WriteIOPS uint64 `json:"write_iops,omitempty"`
}

// Zero tells whether there is no limit.
func (l Limits) Zero() bool {
	return l.CPUs == 0 && l.Weight == 0 && l.Memory == 0 && l.Tasks == 0 && len(l.IO) == 0
}

// A setting is one line for one of a group's files.
type setting struct {
	controller string
	file, text string
}

// period is the time in which a quota of CPU time is counted, in microseconds: the
// kernel's own default.
const period = 100_000

// minQuota is the least quota that the kernel takes, in microseconds
// (min_cfs_quota_period in kernel/sched/core.c).
const minQuota = 1000

// settings are what the limits are to the kernel. The name of a device that cannot be
// limited is in the error.
func (l Limits) settings(sys string) ([]setting, error) {
	var list []setting
	if l.CPUs != 0 {
		quota := max(int64(l.CPUs*period), minQuota)
		list = append(list, setting{"cpu", "cpu.max", fmt.Sprintf("%d %d", quota, period)})
	}
	if l.Weight != 0 {
		list = append(list, setting{"cpu", "cpu.weight", strconv.FormatUint(l.Weight, 10)})
	}
	if l.Memory != 0 {
		list = append(list, setting{"memory", "memory.max", strconv.FormatUint(l.Memory, 10)})
	}
	if l.Tasks != 0 {
		list = append(list, setting{"pids", "pids.max", strconv.FormatUint(l.Tasks, 10)})
	}
	for _, io := range l.IO {
		number, err := diskNumber(sys, io.Device)
		if err != nil {
			return nil, err
		}
		words := []string{number}
		for _, w := range []struct {
			key   string
			value uint64
		}{{"rbps", io.ReadBPS}, {"wbps", io.WriteBPS}, {"riops", io.ReadIOPS}, {"wiops", io.WriteIOPS}} {
			if w.value != 0 {
				words = append(words, fmt.Sprintf("%s=%d", w.key, w.value))
			}
		}
		list = append(list, setting{"io", "io.max", strings.Join(words, " ")})
	}
	return list, nil
}

// needs are the controllers of settings, sorted.
func needs(list []setting) []string {
	var names []string
	for _, s := range list {
		if !slices.Contains(names, s.controller) {
			names = append(names, s.controller)
		}
	}
	slices.Sort(names)
	return names
}

// diskNumber is the MAJOR:MINOR of a disk. The kernel limits no partitions.
func diskNumber(sys, path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "limit", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("limit %s: it is not a block device; name one, as /dev/sda", path)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	// In sysfs, a partition's folder is in that of its disk.
	if _, err := os.Stat(filepath.Join(sys, "dev/block", number, "partition")); err == nil {
		disk := "its disk"
		if place, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", number)); err == nil {
			disk = "/dev/" + filepath.Base(filepath.Dir(place))
		}
		return "", fmt.Errorf("limit %s: the kernel limits whole disks, and this is a partition; name %s", path, disk)
	}
	return number, nil
}

// CheckIO finds mistakes in the names of devices.
func (l Limits) CheckIO() error {
	var failed error
	for _, io := range l.IO {
		_, err := diskNumber("/sys", io.Device)
		failed = errors.Join(failed, err)
	}
	return failed
}

// WeightOf is the cpu.weight for a number of Docker's --cpu-shares, which are those of
// version 1: 2 to 262144, 1024 by default. It is the line through both ends that OCI
// runtimes draw.
func WeightOf(shares uint64) uint64 {
	const least, most = 2, 1 << 18
	shares = min(max(shares, least), most)
	return 1 + (shares-least)*9999/(most-least)
}
