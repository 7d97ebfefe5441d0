package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

const memDevice = "/dev/mem"

// A window is a range of memory space that the kernel has a name for.
type window struct {
	first, last uint64
	name        string
}

// memoryMap is what the kernel knows of memory space.
func memoryMap() ([]window, error) {
	f, err := os.Open("/proc/iomem")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []window
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var w window
		text := strings.TrimSpace(lines.Text())
		if n, _ := fmt.Sscanf(text, "%x-%x", &w.first, &w.last); n != 2 {
			continue
		}
		_, w.name, _ = strings.Cut(text, " : ")
		list = append(list, w)
	}
	return list, nil
}

// openMemory maps the devices' configuration space, and pages of memory space
// that nobody has a name for, where the kernel lets us. It says what it has.
func openMemory(devices []*device) (holes []*region) {
	all, err := memoryMap()
	if err != nil {
		return nil
	}
	ecams := 0
	for _, w := range all {
		if !strings.Contains(w.name, "MMCONFIG") && !strings.Contains(w.name, "ECAM") {
			continue
		}
		for _, d := range devices {
			if d.mmio {
				continue
			}
			if r, err := mapRegion(memDevice, int64(w.first)+int64(d.devfn)*pageSize, pageSize); err == nil {
				d.ecam = r
				ecams++
			}
		}
		break
	}
	for _, at := range []uint64{0xdfff_f000, 0xe010_0000, 0xe020_0000, 0xfd00_0000, 0xfec0_1000, 0xfeff_c000, 0xffff_f000} {
		taken := false
		for _, w := range all { // a window of the bridge is no owner
			taken = taken || w.first <= at && at <= w.last && !strings.HasPrefix(w.name, "PCI Bus")
		}
		if !taken {
			if r, err := mapRegion(memDevice, int64(at), pageSize); err == nil {
				holes = append(holes, r)
			}
		}
	}
	fmt.Printf("hostile: %s gives the configuration space of %d devices, and %d pages of nothing\n", memDevice, ecams, len(holes))
	return holes
}
