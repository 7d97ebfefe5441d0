package spec

// A Container makes the guest one that runs a container image: husk-init puts the
// image's root together and goes there, gives it what programs in containers find, and
// has the agent run commands in it. Nothing else of the guest is seen there.
type Container struct {
	// Root is the image's root, read-only.
	Root Disk `json:"root"`
	// Upper is where what the guest writes goes. nil is the guest's memory.
	Upper *Disk `json:"upper,omitempty"`
	// ReadOnly makes the root read-only; Mounts are as they say.
	ReadOnly bool `json:"read_only,omitempty"`
	// Mounts are made below the root, in this order.
	Mounts []Mount `json:"mounts,omitempty"`

	Hostname   string `json:"hostname"`
	Domainname string `json:"domainname,omitempty"`
	// Hosts are more lines of /etc/hosts: "ADDRESS NAME...".
	Hosts []string `json:"hosts,omitempty"`
	// Interfaces are the network cards, in the order of the machine's.
	Interfaces []Interface `json:"interfaces,omitempty"`
	// DNS are name servers' addresses, Search and DNSOptions the other lines of
	// /etc/resolv.conf. Without DNS, DHCP's are taken.
	DNS        []string `json:"dns,omitempty"`
	Search     []string `json:"search,omitempty"`
	DNSOptions []string `json:"dns_options,omitempty"`
	// Dir is made in the root if it is not there: the command's working directory.
	Dir string `json:"dir,omitempty"`
	// ShmSize is the size of /dev/shm in bytes; 0 is 64 MiB, as in Docker's containers.
	ShmSize int64 `json:"shm_size,omitempty"`
	// Sysctls are written to /proc/sys: "net.core.somaxconn" → "1024".
	Sysctls map[string]string `json:"sysctls,omitempty"`
}

// A Disk is one of the machine's, with a file system on it.
type Disk struct {
	Serial     string `json:"serial"` // of the virtio disk: /sys/block/*/serial
	FileSystem string `json:"file_system"`
}

// A Mount is one below the container's root.
type Mount struct {
	// Target is where: an absolute path in the root, made if it is not there.
	Target string `json:"target"`
	// Tag is that of a virtio-fs share; "" for a tmpfs.
	Tag string `json:"tag,omitempty"`
	// File is the name of a file in the share's root, which alone is mounted; "" for the
	// whole share.
	File     string `json:"file,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
	// Options are a tmpfs's: "size=64m,mode=1777,noexec".
	Options string `json:"options,omitempty"`
}

// An Interface is a network card's configuration.
type Interface struct {
	// DHCP asks for it; what follows is not used then.
	DHCP    bool   `json:"dhcp,omitempty"`
	Address string `json:"address,omitempty"` // "10.0.2.15/24"
	Gateway string `json:"gateway,omitempty"` // "" for none
	MTU     int    `json:"mtu,omitempty"`     // 0 leaves it
}
