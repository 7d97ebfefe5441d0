package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm"
	"github.com/huskvm/husk/vmm"
)

// defaultKVM is the KVM device of every distribution.
const defaultKVM = "/dev/kvm"

// A Capability is an extension of the KVM API, and what this host has of it.
type Capability struct {
	Name   string `json:"name"`
	Value  int    `json:"value"` // 0 is missing
	Needed bool   `json:"needed"`
	Use    string `json:"use"`
}

// capabilities are the extensions that husk asks for, all of vmm.NeededCaps
// among them.
var capabilities = []struct {
	cap kvm.Cap
	use string
}{
	{kvm.CapUserMemory, "guest RAM"},
	{kvm.CapIRQChip, "interrupt controllers in the kernel"},
	{kvm.CapSetTSSAddr, "guests in real mode on Intel"},
	{kvm.CapExtCPUID, "the guest's CPUID"},
	{kvm.CapImmediateExit, "stopping a vCPU without losing a request"},
	{kvm.CapIRQFD, "interrupts of virtio devices without an exit"},
	{kvm.CapIOEventFD, "doorbells of virtio devices without an exit"},
	{kvm.CapIRQRouting, "routes for interrupts"},
	{kvm.CapSignalMSI, "message-signalled interrupts"},
	{kvm.CapSplitIRQChip, "an I/O APIC outside the kernel"},
	{kvm.CapTSCDeadlineTimer, "a timer with few exits"},
	{kvm.CapGetTSCKHz, "telling the guest its clock's frequency instead of having it measured"},
	{kvm.CapAdjustClock, "kvmclock across pauses"},
	{kvm.CapReadOnlyMem, "ROM"},
	{kvm.CapBinaryStatsFD, "KVM's own counters in --stats"},
	{kvm.CapXSave2, "snapshots of guests with large vector state"},
	{kvm.CapX86TripleFaultEvent, "snapshots of a guest in a triple fault"},
	{kvm.CapManualDirtyLog2, "cheap logs of written memory"},
	{kvm.CapMaxVCPUs, "the number of vCPUs"},
}

// examineKVM opens the device: that it is there says little.
func (r *Report) examineKVM(h Host) {
	device := h.kvmDevice()
	sys, err := kvm.Open(device)
	if err != nil {
		found, remedy := openFailure(device, err)
		r.add(Check{"kvm", Bad, found, remedy})
		return
	}
	defer func() { _ = sys.Close() }()
	version, err := sys.APIVersion()
	if err != nil {
		r.add(Check{"kvm", Bad, err.Error(), "dmesg may say why"})
		return
	}
	r.add(Check{Name: "kvm", Status: OK, Found: fmt.Sprintf("%s opens, API version %d", device, version)})
	r.examineCapabilities(sys)
	r.examineRing0(h, sys)
}

func (h Host) kvmDevice() string {
	if h.KVM != "" {
		return h.KVM
	}
	return h.path(defaultKVM)
}

// openFailure says why the KVM device cannot be opened and what to do.
func openFailure(device string, err error) (found, remedy string) {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return device + " is there, but this user may not open it",
			"sudo usermod -aG kvm $USER, and log in again; in a container, pass it in with --device " + defaultKVM
	case errors.Is(err, unix.ENOENT):
		return device + " does not exist",
			"sudo modprobe kvm_intel or kvm_amd; if that fails, switch on VT-x or AMD-V in the firmware, or nested virtualization where this is a guest; " +
				"in a container, pass it in with --device " + defaultKVM
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return device + " has no KVM behind it: the module is not loaded", "sudo modprobe kvm_intel or kvm_amd; dmesg says why if that fails"
	case errors.Is(err, unix.EBUSY):
		return device + " is in use by a program that keeps others out", "stop the other hypervisor (VirtualBox and VMware take the processor's virtualization for themselves)"
	}
	return err.Error(), "use the host's own " + defaultKVM + "; dmesg may say more"
}

func (r *Report) examineCapabilities(sys *kvm.System) {
	var lacking, without []string
	needed := vmm.NeededCaps()
	for _, c := range capabilities {
		isNeeded := slices.Contains(needed, c.cap)
		value, err := sys.CheckExtension(c.cap)
		if err != nil {
			value = 0
		}
		r.Capabilities = append(r.Capabilities, Capability{Name: c.cap.String(), Value: value, Needed: isNeeded, Use: c.use})
		switch {
		case value != 0:
		case isNeeded:
			lacking = append(lacking, fmt.Sprintf("%v (%s)", c.cap, c.use))
		default:
			without = append(without, fmt.Sprintf("%v (%s)", c.cap, c.use))
		}
	}
	switch {
	case lacking != nil:
		r.add(Check{"capabilities", Bad, "missing: " + strings.Join(lacking, ", "), "run a newer kernel on this host"})
	case without != nil:
		r.add(Check{"capabilities", Note, "all needed ones are there; missing: " + strings.Join(without, ", "), "a newer kernel on this host may have them"})
	default:
		r.add(Check{Name: "capabilities", Status: OK, Found: fmt.Sprintf("all %d that husk can use", len(capabilities))})
	}
}

func (r *Report) examineRing0(h Host, sys *kvm.System) {
	probe := h.Probe
	if probe == nil {
		probe = ProbeRing0
	}
	p, err := probe(sys)
	if err != nil {
		r.add(Check{"guest ring 0", Bad, err.Error(), "dmesg may say more"})
		return
	}
	r.Probe = &p
	check := Check{Name: "guest ring 0", Status: OK, Found: "a guest's kernel mode " + p.String()}
	if !p.Native {
		check.Status = Bad
		check.Found += ": no stock kernel boots on this KVM"
		check.Remedy = "use a host with VT-x or AMD-V, or a guest with nested virtualization, or husk lab"
	}
	r.add(check)
}

// CanBoot is nil when the KVM device can boot stock kernels, and else says why
// not. It is what husk boot --accel auto decides by, so it is quick: it looks
// only at what is decisive.
func CanBoot(device string) error {
	if device == "" {
		device = defaultKVM
	}
	sys, err := kvm.Open(device)
	if err != nil {
		found, _ := openFailure(device, err)
		return errors.New(found)
	}
	defer func() { _ = sys.Close() }()
	if c := missing(sys.CheckExtension); len(c) != 0 {
		return fmt.Errorf("%s lacks %v; a newer kernel on this host has it", device, c)
	}
	p, err := ProbeRing0(sys)
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	if !p.Native {
		return fmt.Errorf("%s boots no stock kernel: a guest's kernel mode %v", device, p)
	}
	return nil
}

// missing are the capabilities that a machine needs and KVM, asked by
// checkExtension, does not have.
func missing(checkExtension func(kvm.Cap) (int, error)) []kvm.Cap {
	return slices.DeleteFunc(vmm.NeededCaps(), func(c kvm.Cap) bool {
		value, err := checkExtension(c)
		return err == nil && value != 0
	})
}

// backend says which module is behind KVM, and whether guests can have a KVM of
// their own.
func (h Host) backend() Check {
	const name = "backend"
	flags := h.cpuFlags()
	extension := "neither VT-x nor AMD-V in this processor's flags"
	switch {
	case flags["vmx"]:
		extension = "VT-x (vmx)"
	case flags["svm"]:
		extension = "AMD-V (svm)"
	}
	if _, err := os.Stat(h.path("/sys/module/kvm_pvm")); err == nil {
		return Check{
			name, Note, "kvm_pvm, " + extension + ": it runs only kernels made for it at full speed, and emulates others",
			"use a host with hardware virtualization, or the lab",
		}
	}
	for _, module := range []string{"kvm_intel", "kvm_amd"} {
		if _, err := os.Stat(h.path("/sys/module/" + module)); err != nil {
			continue
		}
		nested := "guests cannot have a KVM of their own"
		if v := h.read("/sys/module/" + module + "/parameters/nested"); v == "Y" || v == "1" {
			nested = "guests can have a KVM of their own"
		}
		return Check{Name: name, Status: OK, Found: fmt.Sprintf("%s, %s; %s", module, extension, nested)}
	}
	return Check{name, Note, "no module of KVM's is loaded: " + extension, "sudo modprobe kvm_intel or kvm_amd"}
}

// cpuFlags is the set of the first processor's flags.
func (h Host) cpuFlags() map[string]bool {
	flags := map[string]bool{}
	for line := range strings.Lines(h.read("/proc/cpuinfo")) {
		name, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) == "flags" {
			for _, f := range strings.Fields(value) {
				flags[f] = true
			}
			break
		}
	}
	return flags
}
