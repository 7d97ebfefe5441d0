package smoke

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a file of cases, in bytes.
const maxFile = 1 << 20

// A file is the YAML form of a list of cases.
type file struct {
	// Defaults are what cases leave open.
	Defaults fileCase   `yaml:"defaults"`
	Cases    []fileCase `yaml:"cases"`
}

// A fileCase is the YAML form of a case, or of several: its matrix has every combination
// of what it lists. A pointer tells what was left out.
type fileCase struct {
	line int    // where it begins
	Name string `yaml:"name"`

	Kernel   *string   `yaml:"kernel"`
	Initrd   *texts    `yaml:"initrd"`
	Cmdline  *string   `yaml:"cmdline"`
	Append   *string   `yaml:"append"`
	CPUs     *int      `yaml:"cpus"`
	Memory   *string   `yaml:"memory"`
	Disks    *texts    `yaml:"disks"`
	Boot     *texts    `yaml:"boot"`
	Modules  *string   `yaml:"modules"`
	Symbols  *texts    `yaml:"symbols"`
	Matrix   *matrix   `yaml:"matrix"`
	Steps    *[]step   `yaml:"steps"`
	Never    *texts    `yaml:"expect-not"`
	NoDetect *texts    `yaml:"no-detect"`
	Allow    *texts    `yaml:"allow"`
	Timeout  *duration `yaml:"timeout"`
	NoOutput *duration `yaml:"no-output"`
	MaxBoot  *duration `yaml:"max-boot"`
	Reboots  *int      `yaml:"reboots"`
	Retries  *int      `yaml:"retries"`
	RetryOn  *texts    `yaml:"retry-on"`
}

// A matrix lists what every combination is tried of.
type matrix struct {
	Kernel []string `yaml:"kernel"`
	Initrd []texts  `yaml:"initrd"`
	Append []string `yaml:"append"`
	CPUs   []int    `yaml:"cpus"`
	Memory []string `yaml:"memory"`
	Disks  []texts  `yaml:"disks"`
}

// texts is a list, or one text that stands for a list of it.
type texts []string

func (t *texts) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*t = texts{n.Value}
		return nil
	}
	return n.Decode((*[]string)(t))
}

// duration is written as "30s" or "2m".
type duration time.Duration

func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	t, err := time.ParseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: %q is no time: write it as 500ms, 30s or 2m", n.Line, n.Value)
	}
	*d = duration(t)
	return nil
}

// step is the YAML form of a step: "poweroff", or a mapping with one of the kinds as
// a key.
type step Step

func (s *step) UnmarshalYAML(n *yaml.Node) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...))
	}
	if n.Kind == yaml.ScalarNode {
		if n.Value != string(PowerOff) {
			return bad("step %q: only poweroff stands alone; others are written as \"expect: TEXT\"", n.Value)
		}
		*s = step{Kind: PowerOff}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return bad("a step is poweroff, or one of expect, send, run, sleep and exit with its value")
	}
	for i := 0; i < len(n.Content); i += 2 {
		if err := s.set(n.Content[i].Value, n.Content[i+1]); err != nil {
			return err
		}
	}
	if s.Kind == "" {
		return bad("a step needs one of expect, send, run, sleep, poweroff and exit")
	}
	for key, only := range map[string]bool{"stdout": s.Stdout != "", "stderr": s.Stderr != "", "code": s.Code != 0} {
		if only && s.Kind != Run && (key != "code" || s.Kind != Exit) {
			return bad("%s is for run steps, and this is %s", key, s.Kind)
		}
	}
	return nil
}

// set takes one key of a step.
func (s *step) set(key string, value *yaml.Node) error {
	kind := func(k StepKind, into any) error {
		if s.Kind != "" {
			return fmt.Errorf("line %d: a step is one thing, and this one is %s and %s", value.Line, s.Kind, k)
		}
		s.Kind = k
		if into == nil {
			return nil
		}
		return value.Decode(into)
	}
	switch key {
	case "expect":
		return kind(Expect, &s.Text)
	case "send":
		return kind(Send, &s.Text)
	case "run":
		if value.Kind != yaml.SequenceNode {
			return kind(Run, &s.Text)
		}
		var words []string
		err := kind(Run, &words)
		s.Text = shellLine(words)
		return err
	case "sleep":
		return kind(Sleep, (*duration)(&s.For))
	case "poweroff":
		return kind(PowerOff, nil)
	case "exit":
		return kind(Exit, &s.Code)
	case "code":
		return value.Decode(&s.Code)
	case "stdout":
		return value.Decode(&s.Stdout)
	case "stderr":
		return value.Decode(&s.Stderr)
	case "timeout":
		return value.Decode((*duration)(&s.Timeout))
	}
	return fmt.Errorf("line %d: a step has no %q; there are expect, send, run, sleep, poweroff and exit, and timeout, code, stdout and stderr", value.Line, key)
}

// ReadFile reads cases from a YAML file. What they name is relative to its folder. What
// they leave open is that of base, which the command line gives. Errors are ErrCase
// and name the file and, where there is one, the line.
func ReadFile(path string, base Case) ([]Case, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cases: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cases: %w", err)
	}
	cases, err := parseFile(b, filepath.Dir(path), base)
	if err != nil {
		return nil, fmt.Errorf("%w file %s: %w", ErrCase, path, err)
	}
	for i := range cases {
		cases[i].File = path
	}
	return cases, nil
}

func parseFile(b []byte, dir string, base Case) ([]Case, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("it is longer than %d bytes", maxFile)
	}
	var f file
	in := yaml.NewDecoder(bytes.NewReader(b))
	in.KnownFields(true)
	if err := in.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty; it needs a list of cases")
		}
		return nil, friendly(err)
	}
	if err := in.Decode(&file{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has a second document behind \"---\"; put all cases into the first")
	}
	if len(f.Cases) == 0 {
		return nil, errors.New("it has no cases")
	}
	if f.Defaults.Name != "" {
		return nil, errors.New("defaults have no name")
	}
	var cases []Case
	for i, line := range caseLines(b) {
		f.Cases[i].line = line
	}
	for i, fc := range f.Cases {
		c := base
		c.Line = fc.line
		f.Defaults.apply(&c, dir)
		fc.apply(&c, dir)
		if c.Name = fc.Name; c.Name == "" {
			c.Name = fmt.Sprintf("case %d", i+1)
		}
		m := fc.Matrix
		if m == nil {
			m = f.Defaults.Matrix
		}
		cases = append(cases, m.expand(c, dir)...)
	}
	return cases, sameNames(cases)
}

// caseLines are the lines on which the cases of a file begin, which has been found to
// be right.
func caseLines(b []byte) (lines []int) {
	var f struct {
		Cases []yaml.Node `yaml:"cases"`
	}
	_ = yaml.Unmarshal(b, &f)
	for _, n := range f.Cases {
		lines = append(lines, n.Line)
	}
	return lines
}

// sameNames refuses two cases of one name: reports could not tell them apart.
func sameNames(cases []Case) error {
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.Name] {
			return fmt.Errorf("two cases are named %q", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// friendly says in a user's words what yaml says in Go's.
func friendly(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.ReplaceAll(text, "unmarshal errors:\n  ", "")
	for _, t := range []string{"smoke.fileCase", "smoke.file", "smoke.matrix"} {
		text = strings.ReplaceAll(text, " not found in type "+t, ": there is no such key")
	}
	text = strings.NewReplacer("!!str ", "", "!!int ", "", "!!map", "a mapping", "!!seq", "a list",
		"[]smoke.fileCase", "a list of cases", "*[]smoke.step", "a list of steps", "\n  ", "; ").Replace(text)
	return errors.New(text)
}

// apply sets what the file says over what is there.
func (f *fileCase) apply(c *Case, dir string) {
	set(&c.Kernel, f.Kernel)
	if f.Kernel != nil {
		c.Kernel = within(dir, *f.Kernel)
	}
	setTexts(&c.Initrds, f.Initrd, func(s string) string { return within(dir, s) })
	set(&c.CommandLine, f.Cmdline)
	set(&c.Append, f.Append)
	set(&c.CPUs, f.CPUs)
	set(&c.Memory, f.Memory)
	setTexts(&c.Disks, f.Disks, func(s string) string { return within(dir, s) })
	setTexts(&c.Boot, f.Boot, nil)
	if f.Modules != nil {
		c.Modules = within(dir, *f.Modules)
	}
	setTexts(&c.Symbols, f.Symbols, func(s string) string { return within(dir, s) })
	if f.Steps != nil {
		c.Steps = nil
		for _, s := range *f.Steps {
			c.Steps = append(c.Steps, Step(s))
		}
	}
	setTexts(&c.ExpectNot, f.Never, nil)
	setTexts(&c.NoDetect, f.NoDetect, nil)
	setTexts(&c.Allow, f.Allow, nil)
	set(&c.Timeout, (*time.Duration)(f.Timeout))
	set(&c.NoOutput, (*time.Duration)(f.NoOutput))
	set(&c.MaxBoot, (*time.Duration)(f.MaxBoot))
	set(&c.Reboots, f.Reboots)
	set(&c.Retries, f.Retries)
	setTexts(&c.RetryOn, f.RetryOn, nil)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func setTexts(to *[]string, from *texts, each func(string) string) {
	if from == nil {
		return
	}
	*to = slices.Clone([]string(*from))
	for i, s := range *to {
		if each != nil {
			(*to)[i] = each(s)
		}
	}
}

// within is a path relative to a folder, unless it is absolute.
func within(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(strings.ReplaceAll(dir, ",", ",,"), path)
}
