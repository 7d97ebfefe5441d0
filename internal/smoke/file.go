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
	Defaults fileCase        `yaml:"defaults"`
	Cases    items[fileCase] `yaml:"cases"`
}

// A fileCase is the YAML form of a case, or of several: its matrix has every combination
// of what it lists. A pointer tells what was left out.
type fileCase struct {
	line int   // where it begins
	Name *text `yaml:"name"`

	Kernel   *text        `yaml:"kernel"`
	Initrd   *texts       `yaml:"initrd"`
	Cmdline  *text        `yaml:"cmdline"`
	Append   *text        `yaml:"append"`
	CPUs     *number      `yaml:"cpus"`
	Memory   *text        `yaml:"memory"`
	Disks    *texts       `yaml:"disks"`
	Boot     *texts       `yaml:"boot"`
	Modules  *text        `yaml:"modules"`
	Symbols  *texts       `yaml:"symbols"`
	Matrix   *matrix      `yaml:"matrix"`
	Steps    *items[step] `yaml:"steps"`
	Never    *texts       `yaml:"expect-not"`
	NoDetect *texts       `yaml:"no-detect"`
	Allow    *texts       `yaml:"allow"`
	Timeout  *duration    `yaml:"timeout"`
	NoOutput *duration    `yaml:"no-output"`
	MaxBoot  *duration    `yaml:"max-boot"`
	Reboots  *number      `yaml:"reboots"`
	Retries  *number      `yaml:"retries"`
	RetryOn  *texts       `yaml:"retry-on"`
}

func (f *fileCase) UnmarshalYAML(n *yaml.Node) error {
	f.line = n.Line
	if err := decode(n, "a case", f); err != nil {
		return err
	}
	// Nothing stands for the default, and 0 would be taken for that.
	for _, t := range []struct {
		key   string
		value *duration
	}{{"timeout", f.Timeout}, {"no-output", f.NoOutput}} {
		if t.value != nil && *t.value <= 0 {
			return wrong(n, "%s %v: must be more than nothing", t.key, time.Duration(*t.value))
		}
	}
	var cpus []number
	if f.Matrix != nil {
		cpus = f.Matrix.CPUs
	}
	if f.CPUs != nil {
		cpus = append(slices.Clone(cpus), *f.CPUs)
	}
	for _, c := range cpus {
		if c < 1 {
			return wrong(n, "cpus %d: must be 1 or more", c)
		}
	}
	return nil
}

// A matrix lists what every combination is tried of.
type matrix struct {
	Kernel texts        `yaml:"kernel"`
	Initrd items[texts] `yaml:"initrd"`
	Append texts        `yaml:"append"`
	CPUs   numbers      `yaml:"cpus"`
	Memory texts        `yaml:"memory"`
	Disks  items[texts] `yaml:"disks"`
}

func (m *matrix) UnmarshalYAML(n *yaml.Node) error { return decode(n, "a matrix", m) }

// ReadFile reads cases from a YAML file. What they name is relative to its folder. What
// is given goes over what they say. Errors are ErrCase and name the file and, where there
// is one, the line.
func ReadFile(path string, g Given) ([]Case, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cases: %w", err)
	}
	defer f.Close()
	cases, err := Read(f, path, g)
	for i := range cases {
		cases[i].File = path
	}
	return cases, err
}

// Read is ReadFile for what is open already. Where it is comes from path, which need not
// be there.
func Read(r io.Reader, path string, g Given) ([]Case, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cases: %s: %w", path, err)
	}
	cases, err := parseFile(b, filepath.Dir(path), g)
	if err != nil {
		return nil, fmt.Errorf("%w file %s: %w", ErrCase, path, err)
	}
	return cases, nil
}

func parseFile(b []byte, dir string, g Given) ([]Case, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("it is longer than %d bytes", maxFile)
	}
	var document yaml.Node
	in := yaml.NewDecoder(bytes.NewReader(b))
	if err := in.Decode(&document); errors.Is(err, io.EOF) || err == nil && isNull(document.Content[0]) {
		return nil, errors.New("it is empty; it needs a list of cases")
	} else if err != nil {
		return nil, friendly(err)
	}
	if err := in.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has a second document behind \"---\"; put all cases into the first")
	}
	var f file
	if err := decode(document.Content[0], "a file of cases", &f); err != nil {
		return nil, friendly(err)
	}
	if len(f.Cases) == 0 {
		return nil, errors.New("it has no cases")
	}
	if f.Defaults.Name != nil {
		return nil, errors.New("defaults have no name")
	}
	var cases []Case
	for i, fc := range f.Cases {
		c := Defaults()
		c.Line = fc.line
		f.Defaults.apply(&c, dir)
		fc.apply(&c, dir)
		c.Name = fmt.Sprintf("case %d", i+1)
		if fc.Name != nil && *fc.Name != "" {
			c.Name = string(*fc.Name)
		}
		m := fc.Matrix
		if m == nil {
			m = f.Defaults.Matrix
		}
		cases = append(cases, m.expand(c, dir, &g)...)
	}
	return cases, nil
}

// SameNames refuses two cases of one name, as an ErrCase: reports could not tell them
// apart.
func SameNames(cases []Case) error {
	seen := map[string]Case{}
	for _, c := range cases {
		if other, ok := seen[c.Name]; ok {
			where := ""
			if c.File != "" {
				where = fmt.Sprintf(" (%s:%d and %s:%d)", other.File, other.Line, c.File, c.Line)
			}
			return fmt.Errorf("%w %s: another one has the same name%s", ErrCase, c.Name, where)
		}
		seen[c.Name] = c
	}
	return nil
}

// friendly says what yaml says without its own name.
func friendly(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}

// apply sets what the file says over what is there.
func (f *fileCase) apply(c *Case, dir string) {
	relative := func(to *string, from *text) {
		if from != nil {
			*to = within(dir, string(*from))
		}
	}
	relative(&c.Kernel, f.Kernel)
	relative(&c.Modules, f.Modules)
	set(&c.CommandLine, (*string)(f.Cmdline))
	set(&c.Append, (*string)(f.Append))
	set(&c.CPUs, (*int)(f.CPUs))
	set(&c.Memory, (*string)(f.Memory))
	setFiles(&c.Initrds, f.Initrd, dir, within)
	setFiles(&c.Disks, f.Disks, dir, diskWithin)
	setFiles(&c.Symbols, f.Symbols, dir, within)
	if f.Steps != nil {
		c.Steps = nil
		for _, s := range *f.Steps {
			c.Steps = append(c.Steps, Step(s))
		}
	}
	set(&c.Boot, (*[]string)(f.Boot))
	set(&c.ExpectNot, (*[]string)(f.Never))
	set(&c.NoDetect, (*[]string)(f.NoDetect))
	set(&c.Allow, (*[]string)(f.Allow))
	set(&c.Timeout, (*time.Duration)(f.Timeout))
	set(&c.NoOutput, (*time.Duration)(f.NoOutput))
	set(&c.MaxBoot, (*time.Duration)(f.MaxBoot))
	set(&c.Reboots, (*int)(f.Reboots))
	set(&c.Retries, (*int)(f.Retries))
	set(&c.RetryOn, (*[]string)(f.RetryOn))
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func setFiles(to *[]string, from *texts, dir string, within func(dir, path string) string) {
	if from != nil {
		*to = filesOf(*from, dir, within)
	}
}

// filesOf are files that are relative to a folder. An empty one is none.
func filesOf(list texts, dir string, within func(dir, path string) string) (files []string) {
	for _, f := range list {
		if f != "" {
			files = append(files, within(dir, f))
		}
	}
	return files
}

// within is a path relative to a folder, unless it is absolute.
func within(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// diskWithin is the same for a disk and its options, where a comma in a file's name is
// written twice.
func diskWithin(dir, image string) string {
	return within(strings.ReplaceAll(dir, ",", ",,"), image)
}
