// Package spec is what the host tells husk-init, the first process of a guest:
// the content of /etc/husk/init.json in its initramfs.
package spec

// Where husk-init finds things in its initramfs.
const (
	Path    = "/etc/husk/init.json" // an Init
	Modules = "/etc/husk/modules"   // paths of kernel modules, one a line, in the order to load them in
)

// AgentPort is the name of the virtio-serial port that the agent serves.
const AgentPort = "husk.agent"

// An Init tells husk-init what to be.
type Init struct {
	// Lab makes the guest a lab: the host's files, and an agent that runs commands.
	Lab *Lab `json:"lab,omitempty"`
	// Demo says what a guest that is no lab does. The kernel command line
	// goes before it: husk.do=, husk.run=, husk.marker=.
	Demo Demo `json:"demo"`
}

// A Lab is a machine that shows the host's root.
type Lab struct {
	Root   string  `json:"root"`             // 9p tag of the host's root; the guest's writes to it stay in the guest
	Shares []Share `json:"shares,omitempty"` // what is written here goes to the host
}

// A Share is a folder of the host, writable in the guest.
type Share struct {
	Tag      string `json:"tag"`  // of its 9p export
	Path     string `json:"path"` // where the guest has it
	ReadOnly bool   `json:"read_only,omitempty"`
}

// A Demo is what a small guest does once it has said what it sees.
type Demo struct {
	// Do is one of "shell" (a shell where the console is a terminal that
	// somebody types on, the default), "run", "poweroff", "reboot", "panic",
	// "triple-fault", "exit", "idle", "spin", "button" and "echo".
	Do string `json:"do,omitempty"`
	// Run is the command line of "run": its exit code goes to the
	// debug-exit port, then the machine is powered off.
	Run string `json:"run,omitempty"`
	// Code is what "exit" writes to the debug-exit port.
	Code byte `json:"code,omitempty"`
	// Marker, unless 0, is written to the marker port as soon as husk-init runs.
	Marker byte `json:"marker,omitempty"`
	// Quiet keeps husk-init from saying what it sees.
	Quiet bool `json:"quiet,omitempty"`
}
