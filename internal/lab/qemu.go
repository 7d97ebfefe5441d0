package lab

import (
	"fmt"
	"strings"

	"github.com/huskvm/husk/internal/guestinit/spec"
)

// The files that QEMU is given, by their numbers in its process.
const (
	agentFD  = 3 // a connected socket
	kernelFD = 4
	initrdFD = 5
)

// rootTag is the 9p tag of the host's root.
const rootTag = "host"

// shareTag is the 9p tag of a share.
func shareTag(i int) string { return fmt.Sprintf("share%d", i) }

// translated is how much memory QEMU keeps translated code in, in MiB. With its
// default a guest's guest is translated over and over.
const translated = 1024

// How much the lab's kernel says. Its messages take a tenth of the boot.
const (
	quiet   = "quiet"
	verbose = "loglevel=7"
)

// commandLine is the lab's kernel's. Its self-tests of cryptography take two
// seconds; grace periods make a boot wait.
const commandLine = "console=ttyS0 panic=-1 mitigations=off cryptomgr.notests rcupdate.rcu_expedited=1"

// threads is how QEMU runs the lab's processors: in turn. With a thread each
// ("multi"), a processor was seen to go on with old code after the kernel had
// patched it (a static key, as KVM switches them with each machine), and the
// lab hung or its kernel's stack was damaged: in most runs of many machines.
// In turn, two processors hung once in seven runs too, so one is the default.
const threads = "single"

// processor has no 5-level page tables: nested in each other, four levels are
// walked in two thirds of the steps. And it has no XSAVE, nor what needs it:
// QEMU's software CPU lets a guest's XSETBV through where KVM wants to see it
// (AMD APM vol. 2 §15.9), so KVM and the guest disagree about the registers
// there are. Kernels then complain of an inconsistent XSAVE, and some die of it.
const processor = "max,+svm,+npt,-la57,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-pku,-mpx"

// args is QEMU's command line.
func (o Options) args(logging string) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-M", "q35",
		"-accel", fmt.Sprintf("tcg,thread=%s,tb-size=%d", threads, translated),
		"-cpu", processor,
		"-smp", fmt.Sprint(o.CPUs),
		"-m", fmt.Sprintf("%dM", o.Memory>>20),
		"-kernel", fmt.Sprintf("/proc/self/fd/%d", kernelFD),
		"-initrd", fmt.Sprintf("/proc/self/fd/%d", initrdFD),
		"-append", o.commandLine(logging),
		"-chardev", "stdio,id=console,signal=off",
		"-serial", "chardev:console",
		"-device", "virtio-serial-pci",
		"-chardev", fmt.Sprintf("socket,id=agent,fd=%d", agentFD),
		"-device", "virtserialport,chardev=agent,name=" + spec.AgentPort,
		"-device", "virtio-rng-pci",
	}
	// multidevs=remap keeps the inode numbers of several file systems apart.
	args = append(args, share(rootTag, "/", true)...)
	for i, s := range o.Shares {
		args = append(args, share(shareTag(i), s.Host, s.ReadOnly)...)
	}
	return args
}

// commandLine is that of the lab's kernel.
func (o Options) commandLine(logging string) string {
	line := commandLine + " " + logging
	if o.Awake {
		line += " idle=poll"
	}
	return line
}

// share exports a folder by 9p.
func share(tag, path string, readOnly bool) []string {
	export := fmt.Sprintf("local,id=%s,path=%s,security_model=none,multidevs=remap", tag, escape(path))
	if readOnly {
		export += ",readonly=on"
	}
	return []string{"-fsdev", export, "-device", fmt.Sprintf("virtio-9p-pci,fsdev=%s,mount_tag=%s", tag, tag)}
}

// escape keeps a comma in a value from ending it.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }
