// Package stage finds out from a guest's console how far its boot has come.
package stage

import (
	"slices"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
)

// A Stage is a part of a boot. Its text is stable.
type Stage string

// The stages, in their order.
const (
	Firmware    Stage = "firmware" // nothing of the kernel was seen
	Decompress  Stage = "decompress"
	FirstPrintk Stage = "first-printk"
	Memory      Stage = "memory"
	SMP         Stage = "smp"
	Drivers     Stage = "drivers"
	Initramfs   Stage = "initramfs"
	RootMounted Stage = "root-mounted"
	Init        Stage = "init" // the first process runs, of the root file system where there is one
)

// Stages are all stages, in their order.
func Stages() []Stage {
	return []Stage{Firmware, Decompress, FirstPrintk, Memory, SMP, Drivers, Initramfs, RootMounted, Init}
}

// A Tracker follows a boot by the lines of the console. A stage is never left but
// for a later one, and one that says nothing, as with a quiet kernel, is passed by;
// when the machine or the kernel starts again, so does the tracker. It is for one
// goroutine at a time.
type Tracker struct {
	phases  []result.Phase
	restart console.Restart
	root    answer // whether the command line names a root file system
	initrd  bool   // the running init says that it is an initramfs's
	systemd bool   // systemd has started, and not yet said where
}

// answer is what is known of something.
type answer uint8

const (
	unknown answer = iota
	yes
	no
)

// New makes a tracker, of a machine that has not started.
func New() *Tracker { return &Tracker{} }

// Entered notes that the processors begin to run: at the machine's start, and behind
// each reset, where the boot begins anew.
func (t *Tracker) Entered(at time.Duration) {
	*t = Tracker{}
	t.Reach(Firmware, at)
}

// Reach notes a stage that is known from elsewhere than the console.
func (t *Tracker) Reach(s Stage, at time.Duration) {
	if slices.Index(Stages(), s) > slices.Index(Stages(), t.Reached()) {
		t.phases = append(t.phases, result.Phase{Name: string(s), At: at})
	}
}

// Reached is the last stage reached, "" by a machine that has not run.
func (t *Tracker) Reached() Stage {
	if len(t.phases) == 0 {
		return ""
	}
	return Stage(t.phases[len(t.phases)-1].Name)
}

// Phases are the stages that were seen of the last boot, and when, since the
// machine's start.
func (t *Tracker) Phases() []result.Phase { return slices.Clone(t.phases) }
