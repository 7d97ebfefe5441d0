package smoke

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/vmm"
)

// needs are what the case's machine takes of a room.
func (c Case) needs() needs {
	c = c.withDefaults()
	memory, _ := vmm.ParseMemory(c.Memory)
	return needs{memory: memory, cpus: c.CPUs, alone: c.alone()}
}

// alone are what no other machine can have while the case's has it: ports of the host
// that it publishes, taps, and images that it writes to. Ports are by their number on any
// address, for one of 0.0.0.0 is on all of them.
func (c *Case) alone() (names []string) {
	for _, flag := range c.Boot {
		name, value, _ := strings.Cut(flag, "=")
		switch name {
		case "--publish":
			if p, err := netdev.ParsePublish(value); err == nil && p.Host.Port() != 0 {
				names = append(names, fmt.Sprintf("port %d/%s", p.Host.Port(), p.Proto))
			}
		case "--net":
			if o, err := netdev.ParseOptions(value); err == nil && o.Kind == netdev.KindTap && !strings.Contains(o.Name, "%") {
				names = append(names, "tap "+o.Name)
			}
		}
	}
	for _, d := range c.Disks {
		spec, err := disk.ParseSpec(throwaway(d))
		if err != nil || !spec.Writes() {
			continue
		}
		path := spec.File
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		if whole, err := filepath.Abs(path); err == nil {
			path = whole
		}
		names = append(names, "disk "+path)
	}
	return names
}
