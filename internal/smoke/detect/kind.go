// Package detect finds out from a guest's console that its kernel is in trouble:
// panics, oopses, warnings, what the sanitizers report, and the like.
//
// A finding needs a line as the kernel writes it, at the start of a line or behind
// the kernel's time stamp within one: the words alone, in what a program prints, are
// none. An old log that is shown by "dmesg" or "cat" cannot be told from what
// happens; allow what is known to be in it.
package detect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/huskvm/husk/internal/smoke/console"
)

// A Kind is what a finding is about. Its text is stable.
type Kind string

// The kinds.
const (
	KernelPanic     Kind = "panic"                    // for any reason that is not one of those below
	InitKilled      Kind = "init-killed"              // the first process ended
	NoInit          Kind = "no-init"                  // there was no first process to run
	NoRoot          Kind = "no-root"                  // no root file system was found
	OutOfMemory     Kind = "out-of-memory"            // the OOM killer was at work
	Oops            Kind = "oops"                     // an exception in the kernel
	GPF             Kind = "general-protection-fault" // that exception, in the kernel
	Bug             Kind = "bug"                      // BUG() and what the kernel calls a bug
	Warning         Kind = "warning"                  // WARN()
	Refcount        Kind = "refcount"                 // WARN() by a reference counter
	AtomicSleep     Kind = "atomic-sleep"             // sleeping or scheduling where that must not be
	Lockdep         Kind = "lockdep"                  // the lock validator, and suspicious use of RCU
	KASAN           Kind = "kasan"                    // memory errors
	KCSAN           Kind = "kcsan"                    // data races
	KMSAN           Kind = "kmsan"                    // uninitialized values
	KFENCE          Kind = "kfence"                   // memory errors, by samples
	UBSAN           Kind = "ubsan"                    // undefined behaviour
	Kmemleak        Kind = "kmemleak"                 // memory leaks
	RCUStall        Kind = "rcu-stall"
	HungTask        Kind = "hung-task"
	SoftLockup      Kind = "soft-lockup"
	HardLockup      Kind = "hard-lockup"
	WorkqueueLockup Kind = "workqueue-lockup"
	RebootLoop      Kind = "reboot-loop"  // the kernel starts again and again
	TripleFault     Kind = "triple-fault" // known to the VMM alone: no line has it
)

// Kinds are all kinds, in the order of the documentation.
func Kinds() []Kind {
	return []Kind{
		KernelPanic, InitKilled, NoInit, NoRoot, OutOfMemory, Oops, GPF, Bug, Warning, Refcount,
		AtomicSleep, Lockdep, KASAN, KCSAN, KMSAN, KFENCE, UBSAN, Kmemleak, RCUStall, HungTask,
		SoftLockup, HardLockup, WorkqueueLockup, RebootLoop, TripleFault,
	}
}

// ParseKind reads a kind.
func ParseKind(s string) (Kind, error) {
	if k := Kind(s); slices.Contains(Kinds(), k) {
		return k, nil
	}
	return "", fmt.Errorf("%q is no kind of finding; there are %s", s, kindNames())
}

func kindNames() string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// An Allow lets findings pass.
type Allow struct {
	Kind    Kind            // "" is any
	Pattern console.Pattern // found in a line of the trace
}

// ParseAllow reads "KIND=PATTERN", or "PATTERN" for findings of any kind. A pattern
// is as console.ParsePattern has it.
func ParseAllow(s string) (Allow, error) {
	pattern := s
	var a Allow
	if name, rest, found := strings.Cut(s, "="); found && !strings.HasPrefix(s, "/") {
		kind, err := ParseKind(name)
		if err != nil {
			return a, fmt.Errorf("allow %q: %w; a text with \"=\" in it is written between slashes", s, err)
		}
		a.Kind, pattern = kind, rest
	} else if kind, err := ParseKind(s); err == nil {
		return a, fmt.Errorf("allow %q: it has no pattern; write %s=/…/, or turn the detector off", s, kind)
	}
	var err error
	if a.Pattern, err = console.ParsePattern(pattern); err != nil {
		return a, fmt.Errorf("allow %q: %w", s, err)
	}
	return a, nil
}

// Config says what is looked for. The zero value is everything.
type Config struct {
	Off   []Kind
	Allow []Allow
	// RebootLoop is how many starts of a kernel are a loop, where one starts the next
	// without a reset of the machine: with 2, a second one is. 0 is 3. Who resets the
	// machine counts that, calls Entered, and Report when it is a loop.
	RebootLoop int
}

func (c Config) validate() error {
	for _, k := range c.Off {
		if _, err := ParseKind(string(k)); err != nil {
			return err
		}
	}
	for _, a := range c.Allow {
		if _, err := ParseKind(string(a.Kind)); a.Kind != "" && err != nil {
			return err
		}
		if a.Pattern.IsZero() {
			return fmt.Errorf("allow %q: it has no pattern; give one, or turn the detector off", a.Kind)
		}
	}
	if c.RebootLoop < 0 || c.RebootLoop == 1 {
		return fmt.Errorf("reboot loop of %d starts: it takes 2 or more; 0 is 3", c.RebootLoop)
	}
	return nil
}
