package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/guestinit/spec"
)

// every, sooner and later are modules to load: those that a container's guest can do
// without until its command runs come later.
func every(string) bool         { return true }
func sooner(module string) bool { return !later(module) }
func later(module string) bool {
	switch module {
	case "button", "evdev", "pvpanic", "pvpanic_mmio", "virtio_balloon":
		return true
	}
	return false
}

// loadModules loads what the list in the initramfs names, if it is wanted. One that the
// kernel refuses (kvm_amd without SVM) is said and passed over: what needs it will
// fail with its own words.
func loadModules(wanted func(module string) bool, warn func(error)) error {
	list, err := os.ReadFile(spec.Modules)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, path := range strings.Fields(string(list)) {
		name := strings.TrimSuffix(filepath.Base(path), ".ko")
		if !wanted(name) {
			continue
		}
		if name == "kvm" {
			awaitClock()
		}
		if err := loadModule(path); err != nil {
			warn(err)
		}
	}
	return nil
}

// awaitClock waits until the kernel has measured the TSC for the second time. A KVM that
// is loaded before takes the rate that was guessed first for the one that guests want,
// where the processor does not promise a constant one (kvm_timer_init), as QEMU's software
// CPU does not. If the guess was more than 250 millionths too high, which happens on a
// busy host, KVM makes guests' TSCs jump to catch up, and their deadline timers are
// seconds to minutes late: whatever boots there hangs.
func awaitClock() {
	const current = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	for range 500 {
		b, err := os.ReadFile(current)
		if err != nil || strings.TrimSpace(string(b)) != "tsc-early" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	say("husk-init: the kernel has not measured its clock in 5 s; guests' timers may be late")
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("module %s: %w", path, err)
	}
	return nil
}
