package vmm

import (
	"io"
	"log/slog"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/devices/disk"
)

// A Backing says where the host takes the guest's RAM from.
type Backing string

// The backings of guest RAM.
const (
	BackingTHP     Backing = "thp"     // anonymous memory, transparent huge pages asked for
	BackingHugeTLB Backing = "hugetlb" // hugetlbfs pages of 2 MiB, reserved at start
	BackingShared  Backing = "shared"  // a memfd, which other processes could map
)

// Config is the blueprint of a machine: plain data, which New turns into one.
// The zero value of a field means its default, as given there.
type Config struct {
	// Kernel is the kernel to boot: a bzImage or an ELF vmlinux. Where there is
	// none, New looks for one on the first disk, with its initrds and its command
	// line, to which it adds the consoles that there are, and panic=-1 unless it says
	// otherwise. What is given here goes first.
	Kernel boot.Source
	// Initrds are loaded one behind the other.
	Initrds []boot.Source
	// AppendInitrds are loaded behind the initrds, wherever those are from. To a Linux
	// guest all of them are one initramfs, where a later file replaces an earlier one.
	AppendInitrds []boot.Source
	// CommandLine is the kernel's command line. See DefaultCommandLine.
	CommandLine string
	// Append is added to the command line, wherever that is from.
	Append string

	// Name is the machine's: its guest is offered it as a host name, and the
	// addresses of its network cards follow from it. Default "husk".
	Name string

	// Memory is the guest's RAM in bytes, a multiple of 2 MiB, at least
	// 16 MiB. Default 512 MiB.
	Memory uint64
	// Backing says where RAM comes from. Default BackingTHP.
	Backing Backing
	// CPUs is the number of virtual processors, 1 to 64. Default 1.
	CPUs int
	// CPU is the processor model.
	CPU CPU

	// Disks are block devices, in the order in which Linux names them: vda, vdb…
	Disks []disk.Spec
	// Networks are network cards, in the order in which Linux finds them.
	Networks []Network
	// Shares are folders of the host that the guest can mount.
	Shares []Share
	// Console is the other end of a virtio console (hvc0 in a Linux guest); nil
	// for none. Unlike Serial it carries the size of a window: VM.Resize.
	Console *Serial
	// Balloon gives the guest a memory balloon, which also returns to the host
	// what memory the guest does not use (free page reporting).
	Balloon bool
	// Vsock gives the guest a socket device; nil for none.
	Vsock *Vsock
	// Entropy gives the guest a source of random numbers (virtio-rng).
	Entropy bool
	// Transport is where the guest finds Disks and the like. Default TransportPCI.
	Transport Transport

	// Serial is the other end of the serial port COM1; nil for a port with
	// nothing attached: it is still there, and its output is dropped.
	Serial *Serial
	// DebugExit maps the debug-exit device (port 0xf4).
	DebugExit bool

	// KVM is the path of the KVM device. Default /dev/kvm.
	KVM string
	// Log receives what the machine has to say. Default: discarded.
	Log *slog.Logger
}

// A CPU is a processor model: a base and what is added to or taken from it.
type CPU struct {
	// Model is "host" (all that KVM supports; the default) or
	// "max-migratable" (without what ties a guest to this host).
	Model string
	// Add and Remove are feature names as in /proc/cpuinfo.
	Add, Remove []string
}

// Serial is what the guest's serial port, or its virtio console, is connected to.
type Serial struct {
	// In is what the guest receives; nil for nothing. It is read only as fast
	// as the guest takes it. When In is also an interface{ SetReadDeadline(time.Time) error }
	// (an *os.File of a pipe or terminal), Run can interrupt a blocked read.
	In io.Reader
	// Out is what the guest sends; nil drops it.
	Out io.Writer
}
