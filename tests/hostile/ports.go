package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func out(port uint16, size int, value uint32)
func in(port uint16, size int) uint32

// A portRange is ports from first to last.
type portRange struct{ first, last uint16 }

// Ports that are left alone: the serial ports, by which the verdict is read, and
// PCI's, which have their own way: device.portConfig.
var spared = []portRange{{0x3f8, 0x3ff}, {0xcf8, 0xcff}}

// Ports that end the machine, of which option -power makes targets: the keyboard
// controller, debug-exit, pvpanic, ACPI's sleep and reset registers.
var power = []portRange{{0x64, 0x64}, {0xf4, 0xf7}, {0x505, 0x505}, {0x600, 0x607}}

// ports are those that have something behind them, and those that are left alone.
type ports struct{ known, spared []portRange }

// openPorts finds out which ports the kernel knows.
func openPorts(withPower bool) (*ports, error) {
	f, err := os.Open("/proc/ioports")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &ports{spared: spared}
	if !withPower {
		p.spared = append(p.spared, power...)
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r portRange
		if n, _ := fmt.Sscanf(strings.TrimSpace(lines.Text()), "%x-%x", &r.first, &r.last); n == 2 && r.last-r.first < 0x100 {
			p.known = append(p.known, r)
		}
	}
	if len(p.known) == 0 {
		return nil, fmt.Errorf("/proc/ioports names none")
	}
	return p, nil
}

// allow opens all ports for the calling thread.
func (p *ports) allow() bool { return unix.Iopl(3) == nil }

// spares tells whether an access must not be.
func (p *ports) spares(port uint16, size int) bool {
	for _, r := range p.spared {
		if port <= r.last && int(port)+size > int(r.first) {
			return true
		}
	}
	return int(port)+size > 1<<16
}

// port is one access to a port.
func (a *attack) port() {
	p := uint16(a.Uint32())
	if a.IntN(4) > 0 {
		r := pick(a, a.ports.known)
		p = r.first + uint16(a.IntN(int(r.last-r.first)+4)) - 1
	}
	size := pick(a, []int{1, 2, 4})
	if a.ports.spares(p, size) {
		return
	}
	a.count.Add(1)
	if a.IntN(2) == 0 {
		in(p, size)
		return
	}
	out(p, size, uint32(a.value()))
}
