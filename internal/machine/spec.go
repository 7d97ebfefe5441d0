// Package machine is the life of the virtual machines that run container images:
// one process each, without a daemon, and a folder each under $XDG_RUNTIME_DIR/husk
// that says what it is, what it was asked for and how it ended.
package machine

import (
	"cmp"
	"time"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/cgroup"
	"github.com/huskvm/husk/vmm"
)

// A Spec is all that a machine is made from. It is plain data: who wants a machine
// writes it, and the machine's process reads it.
type Spec struct {
	ID      string    `json:"id"` // 64 hexadecimal digits
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Image   Image     `json:"image"`
	Process Process   `json:"process"`

	// Root is the file with the image's root, a file system that the guest mounts
	// read-only.
	Root Root `json:"root"`
	// RWSize is the size in bytes of the disk that takes the guest's writes; 0 has them
	// in the guest's memory.
	RWSize   int64       `json:"rw_size,omitempty"`
	ReadOnly bool        `json:"read_only,omitempty"` // the root cannot be written to
	Volumes  []Volume    `json:"volumes,omitempty"`
	Tmpfs    []Tmpfs     `json:"tmpfs,omitempty"`
	Disks    []disk.Spec `json:"disks,omitempty"` // more disks, raw for the guest
	// ShmSize is the size of /dev/shm in bytes; 0 is 64 MiB.
	ShmSize int64 `json:"shm_size,omitempty"`
	// Sysctls are the guest's kernel's: "net.core.somaxconn" → "1024".
	Sysctls map[string]string `json:"sysctls,omitempty"`

	Hostname   string        `json:"hostname"`
	Domainname string        `json:"domainname,omitempty"`
	Hosts      []string      `json:"hosts,omitempty"` // lines for /etc/hosts: "ADDRESS NAME"
	DNS        []string      `json:"dns,omitempty"`
	Search     []string      `json:"dns_search,omitempty"`
	DNSOptions []string      `json:"dns_options,omitempty"`
	Networks   []vmm.Network `json:"networks,omitempty"`

	Kernel  string `json:"kernel"`            // a file
	Modules string `json:"modules,omitempty"` // as boot/modules.For has it; "" to look
	Append  string `json:"append,omitempty"`  // to the kernel's command line
	KVM     string `json:"kvm,omitempty"`     // "" for /dev/kvm
	Memory  uint64 `json:"memory"`            // guest RAM in bytes
	CPUs    int    `json:"cpus"`              // virtual processors
	// Limits are held by the host, or the machine is not started. Bounds are what it keeps
	// to by itself, by its RAM and processors: the host is to hold it to them, too, if it can.
	Limits cgroup.Limits `json:"limits"`
	Bounds cgroup.Limits `json:"bounds"`

	// Timeout ends the machine after that time; 0 for never.
	Timeout time.Duration `json:"timeout,omitempty"`
	// AutoRemove removes the machine's folder when it has ended: --rm.
	AutoRemove bool              `json:"auto_remove,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	// Args are husk's own, as they were typed.
	Args []string `json:"args,omitempty"`
}

// An Image names what the root was made from.
type Image struct {
	Name   string `json:"name"` // as it was asked for
	ID     string `json:"id"`
	Digest string `json:"digest,omitempty"`
}

// A Root is a file with a file system.
type Root struct {
	File       string `json:"file"`
	FileSystem string `json:"file_system"`
}

// A Process is a command in the guest: what an image and the flags make together.
type Process struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`  // "key=value"
	Dir  string   `json:"dir,omitempty"`  // "" for /
	User string   `json:"user,omitempty"` // "USER[:GROUP]", names or numbers, of the guest's files; "" for root
	// Groups are supplementary ones: --group-add.
	Groups    []string `json:"groups,omitempty"`
	TTY       bool     `json:"tty,omitempty"`
	OpenStdin bool     `json:"open_stdin,omitempty"` // else its standard input is empty
	// StopSignal is what asks it to end: "SIGTERM", "9". StopTimeout is how long it
	// may take then; negative for as long as it wants, 0 for DefaultStop.
	StopSignal  string        `json:"stop_signal,omitempty"`
	StopTimeout time.Duration `json:"stop_timeout,omitempty"`
}

// Patience is how long the command may take to end when it is asked to; negative for as
// long as it wants.
func (p Process) Patience() time.Duration { return cmp.Or(p.StopTimeout, DefaultStop) }

// A Volume is a file or folder of the host's in the guest.
type Volume struct {
	Host     string `json:"host"`  // absolute
	Guest    string `json:"guest"` // absolute
	ReadOnly bool   `json:"read_only,omitempty"`
}

// A Tmpfs is a file system in the guest's memory.
type Tmpfs struct {
	Guest   string `json:"guest"`
	Options string `json:"options,omitempty"` // "size=64m,mode=1777"
}
