package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

const platformDevices = "/sys/bus/platform/devices"

// mmioRegisters is where virtio-mmio (virtio 1.2 §4.2.2) has what PCI's common
// configuration has. For the vector, which it has not, it is the acknowledgement of
// interrupts.
var mmioRegisters = map[int]int{
	regFeatureSelect: 0x24, regFeatures: 0x20, regStatus: 0x70, regQueueSelect: 0x30, regQueueSize: 0x38,
	regQueueVector: 0x64, regQueueEnable: 0x44, regQueueReset: 0xc0,
	regQueueDesc: 0x80, regQueueDesc + 4: 0x84, regQueueDriver: 0x90, regQueueDriver + 4: 0x94,
	regQueueDevice: 0xa0, regQueueDevice + 4: 0xa4,
}

const (
	mmioType   = 0x08
	mmioNotify = 0x50
	mmioConfig = 0x100
)

// findMMIO are the virtio devices that are registers in memory.
func findMMIO(onSpare string) []*device {
	bound, err := filepath.Glob("/sys/bus/platform/drivers/virtio-mmio/*/driver")
	if err != nil {
		return nil
	}
	var list []*device
	for _, path := range bound {
		name := filepath.Base(filepath.Dir(path))
		if !strings.Contains(onSpare, "/"+name+"/") {
			list = append(list, &device{
				name: name, mmio: true, bars: map[int]*region{}, msixBAR: -1,
				notify: place{0, mmioNotify}, specific: place{0, mmioConfig},
			})
		}
	}
	return list
}

// takeMMIO takes the device from its driver and maps its registers.
func (d *device) takeMMIO() error {
	all, err := memoryMap()
	if err != nil {
		return err
	}
	for _, w := range all {
		if w.name != d.name {
			continue
		}
		if err := d.unbind(); err != nil {
			return err
		}
		d.bars[0], err = mapRegion(memDevice, int64(w.first), pageSize)
		return err
	}
	return fmt.Errorf("/proc/iomem does not tell where it is")
}
