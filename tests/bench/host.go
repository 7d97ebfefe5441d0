package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// host is where the figures are from.
type host struct {
	Lab       bool     `json:"lab"` // a software machine: see internal/lab
	Kernel    string   `json:"kernel"`
	CPU       string   `json:"cpu"`
	CPUs      int      `json:"cpus"`
	MemoryMiB uint64   `json:"memory_mib"`
	KVM       []string `json:"kvm"`       // modules of KVM with their settings
	HugePages string   `json:"hugepages"` // transparent_hugepage/enabled
	Clock     string   `json:"clocksource"`
	Load      string   `json:"load"` // runnable tasks over the last minute, before the first boot
}

// thisHost describes the host. What cannot be found out is empty.
func thisHost(lab bool) host {
	h := host{
		Lab: lab, CPUs: runtime.NumCPU(),
		Kernel:    firstLine("/proc/sys/kernel/osrelease"),
		HugePages: firstLine("/sys/kernel/mm/transparent_hugepage/enabled"),
		Clock:     firstLine("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
		KVM:       kvmModules("/sys/module"),
	}
	h.Load, _, _ = strings.Cut(firstLine("/proc/loadavg"), " ")
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.MemoryMiB = info.Totalram * uint64(info.Unit) >> 20
	}
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(cpuinfo)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			h.CPU = strings.Trim(name, " \t:\n")
			break
		}
	}
	return h
}

// String is what speed depends on.
func (h host) String() string {
	return fmt.Sprintf("Linux %s, %s, %d CPUs, %d MiB, load %s", h.Kernel, h.CPU, h.CPUs, h.MemoryMiB, h.Load)
}

// kvmModules lists KVM's backends with the parameters that change exits.
func kvmModules(sys string) []string {
	var list []string
	dirs, _ := filepath.Glob(filepath.Join(sys, "kvm_*"))
	for _, d := range dirs {
		text := filepath.Base(d)
		for _, p := range []string{"npt", "ept", "avic", "enable_apicv", "nested"} {
			if v := firstLine(filepath.Join(d, "parameters", p)); v != "" {
				text += " " + p + "=" + v
			}
		}
		list = append(list, text)
	}
	return list
}

func firstLine(path string) string {
	b, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}
