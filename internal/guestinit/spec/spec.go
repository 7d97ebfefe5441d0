// Package spec is what the host tells husk-init, the first process of a guest:
// the content of /.husk/init.json in its initramfs.
package spec

// Where husk-init finds things in its initramfs. All but husk-init itself is in a
// folder that nobody else has: the initramfs of a distribution may lie before ours,
// and nothing of it may be overwritten.
const (
	Dir     = "/.husk"
	Path    = Dir + "/init.json" // an Init
	Modules = Dir + "/modules"   // paths of kernel modules, one a line, in the order to load them in
	Drivers = Dir + "/drivers"   // the folder that the modules are in
)

// AgentPort is the name of the virtio-serial port that a lab's agent serves.
const AgentPort = "husk.agent"

// GuestPort is the port of the host's vsock that a guest's agent connects to.
const GuestPort = 1024

// An Init tells husk-init what to be.
type Init struct {
	// Lab makes the guest a lab: the host's files, and an agent that runs commands.
	Lab *Lab `json:"lab,omitempty"`
	// Guest makes the guest one that runs commands for the host.
	Guest *Guest `json:"guest,omitempty"`
	// Container, beside Guest, makes it one with a container image's root.
	Container *Container `json:"container,omitempty"`
	// Demo says what a guest does that is no lab. One that runs commands does
	// it besides; there "" is to wait for them.
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

// A Guest has an agent that runs commands. It connects to the host's vsock, again
// and again until somebody answers, and anew when the connection ends.
type Guest struct {
	Port uint32 `json:"port"` // the host's: GuestPort, unless there are several

	// Then is the path of another first process, "" for none: /init of the
	// initramfs that lies before ours. husk-init starts the agent, and becomes that
	// one. The kernel command line must say rdinit=/NAME then, where NAME is what
	// husk-init is called in our initramfs.
	Then string `json:"then,omitempty"`
}

// A Demo is what a small guest does once it has said what it sees. The kernel
// command line can say the same, and has the last word: husk.do=poweroff
// husk.run="ls -l /proc" husk.code=3 husk.count=9 husk.marker=1 husk.quiet=1.
type Demo struct {
	Do     Action `json:"do,omitempty"`     // "" is Shell
	Run    string `json:"run,omitempty"`    // the line for Run
	Code   byte   `json:"code,omitempty"`   // for Exit and ExitInit
	Count  uint32 `json:"count,omitempty"`  // for Lines, 0 for DefaultCount
	Marker byte   `json:"marker,omitempty"` // written to the marker port at the start, unless 0
	Quiet  bool   `json:"quiet,omitempty"`  // do not say what the guest sees
}

// An Action is what a demo does.
type Action string

// The actions. In each of them the power button powers the guest off, where
// the modules button and evdev are packed or built in.
const (
	Shell       Action = "shell"        // a shell on the console; its end powers off
	Run         Action = "run"          // run a line in the shell; its exit code goes to the debug-exit port, else powers off
	PowerOff    Action = "poweroff"     // by reboot(2), as the next ones
	Reboot      Action = "reboot"       //
	Panic       Action = "panic"        // the kernel's, by SysRq
	TripleFault Action = "triple-fault" // the kernel's way to restart with reboot=triple
	Exit        Action = "exit"         // write Code to the debug-exit port
	Idle        Action = "idle"         // do nothing, for ever
	Spin        Action = "spin"         // keep a processor busy, for ever
	Lines       Action = "lines"        // print Count lines of 80 bytes, and "the last of COUNT lines"
	OutOfMemory Action = "oom"          // a child takes memory until the kernel ends it
	ExitInit    Action = "exit-init"    // the first process ends with Code: the kernel panics
)

// DefaultCount is how many lines are printed: 8 MB.
const DefaultCount = 100_000
