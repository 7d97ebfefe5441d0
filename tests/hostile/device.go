package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const pciDevices = "/sys/bus/pci/devices"

// A device is a virtio device, taken from its driver: on the PCI bus, or registers
// in memory.
type device struct {
	name   string // as 0000:00:01.0
	mmio   bool
	driver string // its sysfs folder, "" where none had it
	bars   map[int]*region
	start  [256]byte // configuration space as it was
	devfn  int
	config *os.File
	ecam   *region // its page of configuration space in memory, or nil

	// Where the structures are (virtio 1.2 §4.1.4).
	common, notify, specific place
	notifyMultiplier         int
	msixBAR, msixCap         int
}

// pciLock keeps us and, in our system calls, the kernel from each other's use of
// PCI's two ports.
var pciLock sync.Mutex

// A place is in a BAR.
type place struct{ bar, off int }

func (d *device) String() string {
	if d.mmio {
		return fmt.Sprintf("%s, virtio type %d", d.name, d.bars[0].load(mmioType, 4))
	}
	return fmt.Sprintf("%s, virtio type %d, %d BARs", d.name, binary.LittleEndian.Uint16(d.start[2:])-0x1040, len(d.bars))
}

// findDevices are all virtio devices but the one that the spare disk is on.
func findDevices(spare string) ([]*device, error) {
	onSpare := ""
	if spare != "" {
		var err error
		if onSpare, err = filepath.EvalSymlinks("/sys/block/" + filepath.Base(spare)); err != nil {
			return nil, err
		}
	}
	all, err := filepath.Glob(pciDevices + "/*")
	if err != nil {
		return nil, err
	}
	list := findMMIO(onSpare)
	for _, path := range all {
		vendor, _ := os.ReadFile(path + "/vendor")
		if strings.TrimSpace(string(vendor)) != "0x1af4" || strings.Contains(onSpare, "/"+filepath.Base(path)+"/") {
			continue
		}
		d := &device{name: filepath.Base(path), bars: map[int]*region{}}
		var slot, function int
		if n, _ := fmt.Sscanf(d.name, "0000:00:%x.%x", &slot, &function); n != 2 {
			continue // on another bus
		}
		d.devfn = slot<<3 | function
		list = append(list, d)
	}
	return list, nil
}

func (d *device) path(name string) string {
	if d.mmio {
		return filepath.Join(platformDevices, d.name, name)
	}
	return filepath.Join(pciDevices, d.name, name)
}

// unbind takes the device from its driver.
func (d *device) unbind() error {
	driver, err := filepath.EvalSymlinks(d.path("driver"))
	if err != nil {
		return nil //nolint:nilerr // it has none
	}
	d.driver = driver
	if err := os.WriteFile(filepath.Join(driver, "unbind"), []byte(d.name), 0); err != nil {
		return fmt.Errorf("unbind: %w", err)
	}
	return nil
}

// take takes the device from its driver and maps its registers.
func (d *device) take() (err error) {
	if d.mmio {
		return d.takeMMIO()
	}
	if d.config, err = os.OpenFile(d.path("config"), os.O_RDWR, 0); err != nil {
		return err
	}
	if err := d.unbind(); err != nil {
		return err
	}
	if err := os.WriteFile(d.path("enable"), []byte("1"), 0); err != nil {
		return fmt.Errorf("enable: %w", err)
	}
	if n, err := d.config.ReadAt(d.start[:], 0); n < len(d.start) {
		return fmt.Errorf("configuration space: %w", err)
	}
	for bar := range 6 {
		st, err := os.Stat(d.path(fmt.Sprintf("resource%d", bar)))
		if err != nil {
			continue
		}
		size := int(st.Size())
		r, err := mapRegion(d.path(fmt.Sprintf("resource%d", bar)), 0, (size+pageSize-1)&^(pageSize-1))
		if err != nil {
			return err
		}
		d.bars[bar] = r
	}
	return d.readCapabilities()
}

// Capabilities (PCI 3.0 appendix H) and the types of virtio's.
const (
	capVendor, capMSIX = 0x09, 0x11

	structCommon, structNotify, structDevice = 1, 2, 4
)

// readCapabilities finds the structures.
func (d *device) readCapabilities() error {
	le := binary.LittleEndian
	found := 0
	for at, n := int(d.start[0x34]), 0; at >= 0x40 && at <= 0xf0 && n < 48; at, n = int(d.start[at+1]), n+1 {
		c := d.start[at:]
		switch {
		case c[0] == capMSIX:
			d.msixCap, d.msixBAR = at, int(c[4]&7)
		case c[0] == capVendor && len(c) >= 20:
			p := place{int(c[4]), int(le.Uint32(c[8:]))}
			switch c[3] {
			case structCommon:
				d.common = p
				found++
			case structNotify:
				d.notify, d.notifyMultiplier = p, int(le.Uint32(c[16:]))
				found++
			case structDevice:
				d.specific = p
			}
		}
	}
	if found < 2 || d.bars[d.common.bar] == nil || d.bars[d.notify.bar] == nil || d.msixCap == 0 {
		return errors.New("it has not all of a virtio device's structures")
	}
	return nil
}

// storeConfig is a store to configuration space.
func (d *device) storeConfig(reg int, p []byte) {
	pciLock.Lock()
	defer pciLock.Unlock()
	_, _ = d.config.WriteAt(p, int64(reg)) // the kernel refuses what lies behind the end
}

func (d *device) loadConfig(reg int, p []byte) {
	pciLock.Lock()
	defer pciLock.Unlock()
	_, _ = d.config.ReadAt(p, int64(reg))
}

// portConfig is an access to configuration space through PCI's ports, or what
// comes close. It is for a thread that may use ports.
func (a *attack) portConfig(d *device) {
	const address, data = 0xcf8, 0xcfc
	pciLock.Lock()
	defer pciLock.Unlock()
	for range 1 + a.IntN(8) {
		reg := a.IntN(256)
		out(address, 4, 1<<31|uint32(d.devfn)<<8|uint32(reg&^3))
		size := pick(a, []int{1, 2, 4})
		port := uint16(data + reg&3)
		a.count.Add(2)
		if a.IntN(3) == 0 {
			in(port, size)
		} else {
			out(port, size, uint32(a.value()))
		}
		// Parts of the address register, and what it does not point to.
		out(address+uint16(a.IntN(4)), pick(a, []int{1, 2}), a.Uint32())
		out(address, 4, a.Uint32()>>1)
		out(data, 4, a.Uint32())
	}
}

// Registers of the configuration space (PCI 3.0 §6.1).
const (
	regCommand = 0x04
	regBAR     = 0x10

	commandMemoryMaster = 6
)

// goHome puts the BARs back, and lets the device work.
func (d *device) goHome() {
	if d.mmio {
		return
	}
	d.storeConfig(regBAR, d.start[regBAR:regBAR+24])
	d.storeConfig(regCommand, []byte{commandMemoryMaster, 0})
}

// silence resets the device: from here on it does not touch memory.
func (d *device) silence() {
	if !d.mmio {
		d.storeConfig(d.msixCap+2, []byte{0, 0})
	}
	d.goHome()
	off, size := d.at(regStatus, 1)
	d.bars[d.common.bar].store(off, size, 0)
	for end := time.Now().Add(30 * time.Second); d.status() != 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// at is where a register of the common configuration is.
func (d *device) at(reg, size int) (int, int) {
	if d.mmio {
		return mmioRegisters[reg], 4
	}
	return d.common.off + reg, size
}

// status is the device status.
func (d *device) status() uint64 { return d.bars[d.common.bar].load(d.at(regStatus, 1)) }

// giveBack has the driver take the device again, which must work.
func (d *device) giveBack() error {
	if status := d.status(); status != 0 {
		return fmt.Errorf("its status is %#x after a reset", status)
	}
	if !d.mmio {
		d.storeConfig(regCommand, d.start[regCommand:regCommand+2])
	}
	if d.driver == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(d.driver, "bind"), []byte(d.name), 0); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	// The driver of its type has it, too, unless that module is not there.
	status, err := filepath.Glob(d.path("virtio*/status"))
	if err != nil || len(status) == 0 {
		return errors.New("it is on no virtio bus")
	}
	b, err := os.ReadFile(status[0])
	if err != nil {
		return err
	}
	if text := strings.TrimSpace(string(b)); text != "0x0000000f" && text != "0x00000001" {
		return fmt.Errorf("its status is %s with its driver", text)
	}
	disks, _ := filepath.Glob(d.path("virtio*/block/*"))
	for _, disk := range disks {
		if err := readDisk("/dev/" + filepath.Base(disk)); err != nil {
			return err
		}
	}
	return nil
}

func readDisk(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(make([]byte, pageSize), 0)
	return err
}
