// Package smoke boots kernels and images and says whether they work, and if not, why:
// the engine of "husk smoke". A case is a machine and what is tried on it; an attempt
// is one boot of it.
package smoke

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/detect"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/vmm"
)

// ErrCase is a case that cannot be tried as it is written.
var ErrCase = errors.New("bad case")

// A Case is a machine and what is tried on it, as written in a file or with flags.
// Files are as the user named them, but for those of a YAML file, which are relative
// to that.
type Case struct {
	Name string
	File string // where it is written, with its line; "" for one made of flags
	Line int

	Kernel      string   // a file; "" for the one that husk boot would take, or the first disk's own
	Initrds     []string // files
	CommandLine string   // the whole one, if not ""
	Append      string   // added to the default one
	CPUs        int
	Memory      string   // as for husk boot --memory
	Disks       []string // as for husk boot --disk; with snapshot=on unless they say otherwise
	Boot        []string // more flags of husk boot, as "--rng"
	Modules     string   // a folder of kernel modules, for run steps
	Symbols     []string // vmlinux or System.map, for traces

	Steps     []Step
	ExpectNot []string // patterns that must never come
	NoDetect  []string // kinds of detectors that are off
	Allow     []string // what detectors pass over: "kind=pattern" or "pattern"

	Timeout  time.Duration // of an attempt
	NoOutput time.Duration // a guest silent for so long hangs; not while a step runs a command or sleeps
	MaxBoot  time.Duration // from the processors' start to the first process; 0 for no budget
	Reboots  int           // how many reboots are allowed; one more is a loop
	Retries  int           // attempts beyond the first
	RetryOn  []string      // verdicts that another attempt follows

	// Slowness is how many times longer than elsewhere the defaults of times are; 0 is 1.
	Slowness int
}

// The defaults of a case.
const (
	DefaultTimeout  = 5 * time.Minute
	DefaultNoOutput = time.Minute
	DefaultMemory   = "512M"
	DefaultReboots  = 2
	DefaultRetries  = 1
)

// Defaults is a case as it is before anything is said of it. What is 0 in it has its
// default too.
func Defaults() Case { return Case{Reboots: DefaultReboots, Retries: DefaultRetries} }

// guestDefaults go on a kernel's command line unless it says otherwise: what would
// hang for ever becomes a panic, and a panic a reset, which is seen at once.
var guestDefaults = []string{"softlockup_panic=1", "hung_task_panic=1"}

// A StepKind says what a step does.
type StepKind string

// The kinds of steps.
const (
	Expect   StepKind = "expect"   // wait for text on the console
	Send     StepKind = "send"     // type
	Run      StepKind = "run"      // run a command in the guest
	Sleep    StepKind = "sleep"    // wait
	PowerOff StepKind = "poweroff" // have the guest power off, and wait for that
	Exit     StepKind = "exit"     // wait for the guest's exit code at the debug-exit device
)

// A Step is one step of a case.
type Step struct {
	Kind           StepKind
	Text           string        // Expect: a pattern; Send: the text; Run: a line for the guest's shell
	Code           int           // Run, Exit: the exit code that is expected
	Stdout, Stderr string        // Run: patterns that must be in the output; "" for any
	For            time.Duration // Sleep
	Timeout        time.Duration // 0: as long as the attempt has
}

// String is the step for people, in one line.
func (s Step) String() string {
	switch s.Kind {
	case Expect, Send, Run:
		return fmt.Sprintf("%s %s", s.Kind, quoteText(s.Text))
	case Sleep:
		return fmt.Sprintf("%s %v", s.Kind, s.For)
	case Exit:
		return fmt.Sprintf("%s %d", s.Kind, s.Code)
	}
	return string(s.Kind)
}

// quoteText quotes text that would not be one line of its own.
func quoteText(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == '"' }) || strings.TrimSpace(s) != s {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// A script is what a case's texts mean.
type script struct {
	expect         []console.Pattern // by step; the zero Pattern elsewhere
	stdout, stderr []*console.Pattern
	never          []console.Pattern
	detect         detect.Config
}

// withDefaults fills in what the case leaves open.
func (c Case) withDefaults() Case {
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	if c.Memory == "" {
		c.Memory = DefaultMemory
	}
	if c.Timeout == 0 {
		c.Timeout = c.slow(DefaultTimeout)
	}
	if c.NoOutput == 0 {
		c.NoOutput = c.slow(DefaultNoOutput)
	}
	if len(c.RetryOn) == 0 {
		c.RetryOn = []string{string(result.Infrastructure)}
	}
	return c
}

// slow is a default time where this case is made.
func (c *Case) slow(t time.Duration) time.Duration { return t * time.Duration(max(1, c.Slowness)) }

// runs tells whether the case runs commands in the guest.
func (c *Case) runs() bool {
	for _, s := range c.Steps {
		if s.Kind == Run {
			return true
		}
	}
	return false
}

// Check finds what is wrong with the case, as an ErrCase, without a look at its files.
func (c Case) Check() error {
	_, err := c.compile()
	return err
}

// compile reads the case's texts.
func (c *Case) compile() (*script, error) {
	s := &script{}
	fail := func(what string, err error) error {
		return fmt.Errorf("%w %s: %s: %w", ErrCase, c.Name, what, err)
	}
	pattern := func(text string) (*console.Pattern, error) {
		if text == "" {
			return nil, nil
		}
		p, err := console.ParsePattern(text)
		return &p, err
	}
	for i, step := range c.Steps {
		what := fmt.Sprintf("step %d (%s)", i+1, step.Kind)
		var expect console.Pattern
		var err error
		switch step.Kind {
		case Expect:
			expect, err = console.ParsePattern(step.Text)
		case Run:
			if strings.TrimSpace(step.Text) == "" {
				err = errors.New("no command")
			} else if step.Code < 0 || step.Code > 255 {
				err = fmt.Errorf("code %d: a command ends with 0 to 255", step.Code)
			}
		case Sleep:
			if step.For <= 0 {
				err = fmt.Errorf("for how long? %v is no time to wait", step.For)
			}
		case Exit:
			if step.Code < 0 || step.Code > 255 {
				err = fmt.Errorf("exit code %d: a guest has 0 to 255", step.Code)
			}
		case PowerOff, Send:
		default:
			err = fmt.Errorf("no such kind of step; there are expect, send, run, sleep, poweroff and exit")
		}
		if err == nil && step.Timeout < 0 {
			err = fmt.Errorf("timeout %v: must not be negative", step.Timeout)
		}
		if err == nil && i < len(c.Steps)-1 && (step.Kind == PowerOff || step.Kind == Exit) {
			err = errors.New("nothing can come behind it")
		}
		if err != nil {
			return nil, fail(what, err)
		}
		stdout, err := pattern(step.Stdout)
		if err != nil {
			return nil, fail(what+": stdout", err)
		}
		stderr, err := pattern(step.Stderr)
		if err != nil {
			return nil, fail(what+": stderr", err)
		}
		s.expect, s.stdout, s.stderr = append(s.expect, expect), append(s.stdout, stdout), append(s.stderr, stderr)
	}
	for _, text := range c.ExpectNot {
		p, err := console.ParsePattern(text)
		if err != nil {
			return nil, fail("expect-not", err)
		}
		s.never = append(s.never, p)
	}
	var err error
	if s.detect, err = c.detectors(); err != nil {
		return nil, fail("detectors", err)
	}
	return s, c.checkRest(fail)
}

// checkRest checks what is no text to match.
func (c *Case) checkRest(fail func(string, error) error) error {
	for _, t := range []struct {
		name string
		time time.Duration
	}{{"timeout", c.Timeout}, {"no-output", c.NoOutput}, {"max-boot", c.MaxBoot}} {
		if t.time < 0 {
			return fail(t.name, fmt.Errorf("%v: must not be negative", t.time))
		}
	}
	switch {
	case c.CPUs < 0:
		return fail("cpus", fmt.Errorf("%d: must be 1 or more", c.CPUs))
	case c.Reboots < 0:
		return fail("reboots", fmt.Errorf("%d: must be 0 or more", c.Reboots))
	case c.Retries < 0:
		return fail("retries", fmt.Errorf("%d: must be 0 or more", c.Retries))
	case c.CommandLine != "" && c.Append != "":
		return fail("append", errors.New("it adds to the default command line, which cmdline replaces; use one of them"))
	}
	if c.Memory != "" {
		if _, err := vmm.ParseMemory(c.Memory); err != nil {
			return fail("memory", err)
		}
	}
	for _, d := range c.Disks {
		if _, err := disk.ParseSpec(d); err != nil {
			return fail("disk", err)
		}
	}
	for _, v := range c.RetryOn {
		switch result.Verdict(v) {
		case result.Fail, result.Detected, result.Hang, result.Timeout, result.VMM, result.Infrastructure:
		default:
			return fail("retry-on", fmt.Errorf("%q: must be one of fail, detected, hang, timeout, vmm, infrastructure", v))
		}
	}
	return nil
}
