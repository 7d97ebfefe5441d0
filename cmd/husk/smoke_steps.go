package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/huskvm/husk/internal/smoke"
)

// stepFlags are the flags that make steps, or say more of one.
var stepFlags = []string{"expect", "send", "run", "sleep", "poweroff", "exit", "within", "run-code", "run-stdout", "run-stderr"}

// A stepFlag adds a step: the order of the flags is that of the steps.
type stepFlag struct {
	steps *[]smoke.Step
	kind  smoke.StepKind
	value string // what the value is called
}

func (s *stepFlag) String() string { return "" }
func (s *stepFlag) Type() string   { return s.value }

func (s *stepFlag) Set(value string) error {
	step := smoke.Step{Kind: s.kind}
	var err error
	switch s.kind {
	case smoke.Send:
		step.Text, err = smoke.Unescape(value)
	case smoke.Sleep:
		step.For, err = time.ParseDuration(value)
	case smoke.Exit:
		step.Code, err = strconv.Atoi(value)
	case smoke.PowerOff:
		if wanted, err := strconv.ParseBool(value); err != nil || !wanted {
			return err
		}
	default:
		step.Text = value
	}
	*s.steps = append(*s.steps, step)
	return err
}

// A lastStep says more of the step before it.
type lastStep struct {
	steps *[]smoke.Step
	what  string
}

func (l *lastStep) String() string { return "" }

func (l *lastStep) Type() string {
	return map[string]string{"within": "TIME", "code": "CODE", "stdout": "PATTERN", "stderr": "PATTERN"}[l.what]
}

func (l *lastStep) Set(value string) (err error) {
	if len(*l.steps) == 0 {
		return fmt.Errorf("it is of the step before it, and there is none")
	}
	step := &(*l.steps)[len(*l.steps)-1]
	if l.what != "within" && step.Kind != smoke.Run {
		return fmt.Errorf("it is of the --run before it, and there is --%s", step.Kind)
	}
	switch l.what {
	case "within":
		step.Timeout, err = time.ParseDuration(value)
		if err == nil && step.Timeout <= 0 {
			err = fmt.Errorf("it must be more than nothing")
		}
	case "code":
		step.Code, err = strconv.Atoi(value)
		if err == nil && (step.Code < 0 || step.Code > 255) {
			err = fmt.Errorf("a command ends with 0 to 255")
		}
	case "stdout":
		step.Stdout = value
	case "stderr":
		step.Stderr = value
	}
	return err
}
