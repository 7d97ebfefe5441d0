// Package doctor finds out what this host can do for husk, and what to do about
// what it cannot. It is the part of husk besides vmm that talks to KVM itself:
// it must look at a KVM that vmm would refuse.
package doctor

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/huskvm/husk/kvm"
)

// A Status is how a check came out.
type Status string

// The statuses.
const (
	OK   Status = "ok"
	Note Status = "note" // husk works, but something could be better or is missing
	Bad  Status = "bad"  // husk boot cannot use KVM because of this
)

// A Check is one thing looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`            // what is the case
	Remedy string `json:"remedy,omitempty"` // what to do about it
}

// A Verdict is where husk boot can run.
type Verdict string

// The verdicts.
const (
	OnKVM   Verdict = "kvm"
	InLab   Verdict = "lab"  // KVM will not do, but the lab will
	Nowhere Verdict = "none" // neither
)

// A Report is all that was found out.
type Report struct {
	Verdict      Verdict      `json:"verdict"`
	Checks       []Check      `json:"checks"`
	Probe        *Probe       `json:"probe,omitempty"` // nil where no guest could be made
	Capabilities []Capability `json:"capabilities,omitempty"`
}

// A Host is what to examine. The zero value is this host.
type Host struct {
	Root  string                                  // of the file system, for tests; "" is /
	KVM   string                                  // the KVM device; "" is /dev/kvm
	Lab   func() (qemu, kernel string, err error) // what the lab would run on; nil is lab.Available
	Probe func(*kvm.System) (p Probe, e error)    // nil is ProbeRing0
}

// path is where the host has an absolute path.
func (h Host) path(absolute string) string { return filepath.Join("/", h.Root, absolute) }

// Examine looks at everything. What it cannot find out is in the report, too.
func (h Host) Examine() *Report {
	r := &Report{Verdict: OnKVM}
	r.examineKVM(h)
	lab := h.lab()
	r.add(h.backend(), h.hugePages(), h.hugetlb(), h.memory(), h.memlock(), h.openFiles(),
		h.device("tun", "/dev/net/tun", "networks with a tap device", "modprobe tun"),
		h.device("vhost-net", "/dev/vhost-net", "faster networks", "modprobe vhost_net"),
		h.kernels(), lab)
	for _, c := range r.Checks {
		if c.Status == Bad {
			r.Verdict = InLab
		}
	}
	if r.Verdict == InLab && lab.Status != OK {
		r.Verdict = Nowhere
	}
	return r
}

func (r *Report) add(checks ...Check) { r.Checks = append(r.Checks, checks...) }

// Write prints the report for people.
func (r *Report) Write(w io.Writer) error {
	for _, c := range r.Checks {
		if _, err := fmt.Fprintf(w, "%-4s  %-12s %s\n", c.Status, c.Name, c.Found); err != nil {
			return err
		}
		if c.Remedy != "" {
			if _, err := fmt.Fprintf(w, "%18s -> %s\n", "", c.Remedy); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", map[Verdict]string{
		OnKVM:   "husk boot runs here on KVM.",
		InLab:   "husk boot runs here in the lab: a software machine with a KVM of its own, complete but slow.",
		Nowhere: "husk boot cannot run here, neither on KVM nor in the lab; the lines above say what to do.",
	}[r.Verdict])
	return err
}
