package smoke

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// step is the YAML form of a step: "poweroff", or a mapping with one of the kinds as
// a key.
type step Step

// The keys of a step: those that say what it does, and those that say more of it.
var (
	stepKinds = []string{string(Expect), string(Send), string(Run), string(Sleep), string(PowerOff), string(Exit)}
	stepMore  = []string{"timeout", "code", "stdout", "stderr"}
)

func (s *step) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		if n.Value != string(PowerOff) {
			return wrong(n, "step %q: only poweroff stands alone; others are written as \"expect: TEXT\"", n.Value)
		}
		*s = step{Kind: PowerOff}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return wrong(n, "a step is poweroff, or one of expect, send, run, sleep and exit with its value")
	}
	list, err := pairs(n, "a step")
	if err != nil {
		return err
	}
	for _, p := range list {
		switch {
		case slices.Contains(stepMore, p.key):
		case !slices.Contains(stepKinds, p.key):
			return wrong(p.node, "a step has no key %q; there are %s, and %s", p.key, strings.Join(stepKinds, ", "), strings.Join(stepMore, ", "))
		case s.Kind != "":
			return wrong(p.node, "a step is one thing, and this one is %s and %s", s.Kind, p.key)
		default:
			s.Kind = StepKind(p.key)
		}
	}
	if s.Kind == "" {
		return wrong(n, "a step needs one of expect, send, run, sleep, poweroff and exit")
	}
	for _, p := range list {
		if err := s.set(p); err != nil {
			return err
		}
	}
	return nil
}

// set takes one key of a step, whose kind is known.
func (s *step) set(p pair) error {
	if isNull(p.value) && p.key != string(PowerOff) {
		return wrong(p.node, "%s needs a value", p.key)
	}
	switch p.key {
	case "code", "stdout", "stderr":
		if s.Kind != Run {
			return wrong(p.node, "%s is for run steps, and this is %s", p.key, s.Kind)
		}
	}
	switch p.key {
	case "expect", "send":
		return p.value.Decode((*text)(&s.Text))
	case "run":
		if p.value.Kind != yaml.SequenceNode {
			return p.value.Decode((*text)(&s.Text))
		}
		var words texts
		err := p.value.Decode(&words)
		s.Text = shellLine(words)
		return err
	case "sleep":
		return p.value.Decode((*duration)(&s.For))
	case "poweroff":
		if !isNull(p.value) && p.value.Value != "true" {
			return wrong(p.value, "poweroff has no value; its time goes beside it, as \"timeout: 30s\"")
		}
		return nil
	case "exit", "code":
		return p.value.Decode((*number)(&s.Code))
	case "stdout":
		return p.value.Decode((*text)(&s.Stdout))
	case "stderr":
		return p.value.Decode((*text)(&s.Stderr))
	case "timeout":
		if err := p.value.Decode((*duration)(&s.Timeout)); err != nil {
			return err
		}
		if s.Timeout <= 0 {
			return wrong(p.value, "timeout %v: must be more than nothing", s.Timeout)
		}
	}
	return nil
}
