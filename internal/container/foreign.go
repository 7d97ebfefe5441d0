package container

import (
	"fmt"
	"slices"
	"strings"
)

// A Foreign flag is one of docker run's that has no work to do here.
type Foreign struct {
	Name string
	Bool bool // it needs no value
	// Accept are the values that ask for nothing that a machine does not give anyway;
	// with All, each.
	Accept []string
	All    bool
	// Reason says why the others are refused, and what to do.
	Reason string
}

// Check is the error of a value that asks for what a machine has not.
func (f Foreign) Check(value string) error {
	if f.All || slices.Contains(f.Accept, strings.ToLower(value)) {
		return nil
	}
	return fmt.Errorf("%s", f.Reason)
}

// What many flags have in common.
const (
	ownKernel  = "a machine has a kernel of its own, with nothing of this host's in it"
	noService  = "husk has no service that could do that"
	ownNetwork = "husk makes no networks; on one of yours, by --network tap=NAME, addresses and names are given by it"
)

// ForeignFlags are Docker's flags that have no work to do here, by what they are about.
// Where one asks for what a machine gives in any case, it is accepted; where it asks for
// something that would not be, it is refused: who asks for less than all of root's rights
// must not believe to have got it.
func ForeignFlags() []Foreign {
	on, off := []string{"true"}, []string{"false"}
	return []Foreign{
		// More rights: root in a machine has all of them, over a kernel that is its own.
		{Name: "privileged", Bool: true, All: true},
		{Name: "cap-add", All: true},
		{Name: "init", Bool: true, All: true}, // husk-init is process 1, and takes orphans
		// Fewer rights.
		{Name: "cap-drop", Reason: "the command of a machine has what root's processes have, over a kernel of its own; drop them in the command, as capsh or setpriv do, or run as another user with -u"},
		{Name: "security-opt", Accept: []string{"seccomp=unconfined", "apparmor=unconfined", "label=disable", "label:disable", "systempaths=unconfined", "no-new-privileges=false", "no-new-privileges:false"}, Reason: "the machine is the confinement: no profiles of this host's hold in it; set what the command needs in the command, as setpriv --no-new-privs does"},
		{Name: "userns", Accept: []string{"", "host"}, Reason: ownKernel + ", so root in it is nobody here; leave it out"},
		// Namespaces.
		{Name: "ipc", Accept: []string{"", "private"}, Reason: ownKernel + ", so it cannot share memory with others; leave it out"},
		{Name: "pid", Accept: []string{"", "private"}, Reason: ownKernel + ", so it cannot see others' processes; leave it out"},
		{Name: "uts", Accept: []string{"", "private"}, Reason: ownKernel + ", so it has a host name of its own: --hostname"},
		{Name: "cgroupns", Accept: []string{"", "private"}, Reason: ownKernel + ", and control groups of its own; leave it out"},
		{Name: "cgroup-parent", Reason: "husk makes the machine's control group beside its own; start husk where it is to be, as with systemd-run --scope --slice=NAME"},
		{Name: "isolation", Accept: []string{"", "default"}, Reason: "that is for Windows; leave it out"},
		{Name: "runtime", Reason: "husk is the runtime; leave it out"},
		// Devices.
		{Name: "device", Reason: "a machine sees none of this host's devices; give it a disk with --disk PATH, or a file or folder with -v"},
		{Name: "device-cgroup-rule", Reason: "a machine has all of its own devices, and none of this host's; leave it out"},
		{Name: "gpus", Reason: "husk passes no devices of this host's to a machine, and so no GPUs"},
		// Memory and processors.
		{Name: "memory-swap", Reason: "a machine's memory is the RAM of -m, and there is no swap; leave it out"},
		{Name: "memory-swappiness", Accept: []string{"-1"}, Reason: "a machine has no swap; leave it out"},
		{Name: "memory-reservation", Reason: "what a guest does not use of its RAM is not taken from this host; leave it out"},
		{Name: "kernel-memory", Reason: "a machine's kernel is in the RAM of -m; leave it out"},
		{Name: "oom-kill-disable", Bool: true, Accept: off, Reason: "the guest's kernel decides what to end when its RAM is used up; give it more with -m"},
		{Name: "oom-score-adj", Accept: []string{"0"}, Reason: "start husk with it: choom -n N -- husk run …"},
		{Name: "cpuset-cpus", Reason: "start husk on these processors, and the machine is there, too: taskset -c LIST husk run …"},
		{Name: "cpuset-mems", Reason: "start husk on these nodes, and the machine is there, too: numactl --membind=LIST husk run …"},
		{Name: "cpu-rt-period", Accept: []string{"0"}, Reason: "control groups of version 2 have no real-time limits; leave it out"},
		{Name: "cpu-rt-runtime", Accept: []string{"0"}, Reason: "control groups of version 2 have no real-time limits; leave it out"},
		{Name: "blkio-weight", Accept: []string{"0"}, Reason: "control groups of version 2 hold no such weight for all disks; limit the rate with --device-write-bps and the like"},
		{Name: "blkio-weight-device", Reason: "control groups of version 2 hold no such weight for all disks; limit the rate with --device-write-bps and the like"},
		{Name: "pids-limit", Accept: []string{"0", "-1"}, Reason: "the machine's own kernel holds its processes, in its own RAM; --sysctl kernel.pid_max=N is a limit in it"},
		{Name: "ulimit", Reason: "set it in the command: sh -c 'ulimit -n 4096; exec …'"},
		{Name: "storage-opt", Reason: "a machine's writes go to its RAM, or with --rw-size SIZE to a disk of that size"},
		// Networks.
		{Name: "ip", Reason: "on a user network the guest's address is the network's 15th, and --network user,net=10.1.2.0/24 chooses the network; " + ownNetwork},
		{Name: "ip6", Reason: "the user network has no IPv6; " + ownNetwork},
		{Name: "link", Reason: "machines know nothing of each other; publish a port, and give its address with --add-host or -e"},
		{Name: "link-local-ip", Reason: ownNetwork},
		{Name: "network-alias", Reason: ownNetwork},
		// Volumes of others.
		{Name: "volumes-from", Reason: "give both machines the same volume: -v NAME:/path"},
		{Name: "volume-driver", Accept: []string{"", "local"}, Reason: "husk's volumes are folders of this host; leave it out"},
		// What a daemon would do.
		{Name: "restart", Accept: []string{"", "no"}, Reason: noService + "; run husk run in a unit of systemd's, with Restart="},
		{Name: "health-cmd", Reason: noService + "; look from outside, or with husk exec"},
		{Name: "health-interval", Reason: noService + "; leave it out"},
		{Name: "health-retries", Reason: noService + "; leave it out"},
		{Name: "health-start-period", Reason: noService + "; leave it out"},
		{Name: "health-start-interval", Reason: noService + "; leave it out"},
		{Name: "health-timeout", Reason: noService + "; leave it out"},
		{Name: "no-healthcheck", Bool: true, All: true},
		{Name: "log-driver", Accept: []string{"", "json-file", "local"}, Reason: "what the command writes is kept in husk's own log, which husk logs shows; send it elsewhere from there"},
		{Name: "log-opt", Reason: "what the command writes is kept in husk's own log, which has no options; leave it out"},
		{Name: "use-api-socket", Bool: true, Accept: off, Reason: noService + ", and so no socket of it"},
		{Name: "annotation", Reason: "there is no runtime below husk that would read it; keep it with --label"},
		{Name: "disable-content-trust", Bool: true, Accept: on, Reason: "husk verifies digests and no signatures; name the image by its digest: NAME@sha256:…"},
	}
}
