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
// when the kernel starts again, so does the tracker. It is for one goroutine at a
// time.
type Tracker struct {
	reached int // in Stages
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

// Entered notes when the processors first ran.
func (t *Tracker) Entered(at time.Duration) { t.Reach(Firmware, at) }

// Reach notes a stage that is known from elsewhere than the console.
func (t *Tracker) Reach(s Stage, at time.Duration) {
	i := slices.Index(Stages(), s)
	if i < t.reached || len(t.phases) > 0 && i == t.reached {
		return
	}
	t.reached = i
	t.phases = append(t.phases, result.Phase{Name: string(s), At: at})
}

// Reached is the last stage reached.
func (t *Tracker) Reached() Stage { return Stages()[t.reached] }

// Phases are the stages that were seen, and when.
func (t *Tracker) Phases() []result.Phase { return slices.Clone(t.phases) }
