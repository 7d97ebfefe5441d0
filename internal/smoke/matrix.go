package smoke

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/internal/smoke/console"
)

// An axis is one dimension of a matrix: the values of one property.
type axis struct {
	name   string
	values []string             // as they stand in a case's name
	set    func(c *Case, i int) // gives the case value i
}

// A Given is what the command line gives. It goes over what a file says.
type Given struct {
	// Kernels are each tried, and so are CPUs and Memory; an empty list leaves that to
	// the file.
	Kernels []string
	CPUs    []int
	Memory  []string
	// Initrds and Disks are those of every case; CommandLine is its whole one.
	Initrds, Disks []string
	CommandLine    string
	// Rest sets what else is given; it may be nil.
	Rest func(*Case)
}

// Expand gives a case for every combination of what is given. The names tell what differs.
func Expand(c Case, g Given) []Case { return (*matrix)(nil).expand(c, "", &g) }

// axes are the dimensions of the matrix, without those that the command line settles.
func (m *matrix) axes(dir string, g *Given) []axis {
	if m == nil {
		m = &matrix{}
	}
	kernel := axis{"kernel", shortened(each(m.Kernel)), func(c *Case, i int) { c.Kernel = within(dir, m.Kernel[i]) }}
	initrd := axis{"initrd", shortened(m.Initrd), func(c *Case, i int) { c.Initrds = filesOf(m.Initrd[i], dir, within) }}
	line := axis{"append", m.Append, func(c *Case, i int) { c.Append = boot.AddWords(c.Append, m.Append[i]) }}
	cpus := axis{"cpus", written(m.CPUs), func(c *Case, i int) { c.CPUs = int(m.CPUs[i]) }}
	memory := axis{"memory", m.Memory, func(c *Case, i int) { c.Memory = m.Memory[i] }}
	disks := axis{"disks", shortened(m.Disks), func(c *Case, i int) { c.Disks = filesOf(m.Disks[i], dir, diskWithin) }}
	if len(g.Kernels) > 0 {
		kernel = axis{"kernel", shortened(each(g.Kernels)), func(c *Case, i int) { c.Kernel = g.Kernels[i] }}
	}
	if len(g.CPUs) > 0 {
		cpus = axis{"cpus", written(g.CPUs), func(c *Case, i int) { c.CPUs = g.CPUs[i] }}
	}
	if len(g.Memory) > 0 {
		memory = axis{"memory", g.Memory, func(c *Case, i int) { c.Memory = g.Memory[i] }}
	}
	list := []axis{kernel}
	if len(g.Initrds) == 0 {
		list = append(list, initrd)
	}
	if g.CommandLine == "" {
		list = append(list, line)
	}
	list = append(list, cpus, memory)
	if len(g.Disks) == 0 {
		list = append(list, disks)
	}
	return list
}

// put puts the rest of what the command line gives over a case.
func (g *Given) put(c *Case) {
	if len(g.Initrds) > 0 {
		c.Initrds = g.Initrds
	}
	if len(g.Disks) > 0 {
		c.Disks = g.Disks
	}
	if g.CommandLine != "" {
		c.CommandLine, c.Append = g.CommandLine, ""
	}
	if g.Rest != nil {
		g.Rest(c)
	}
}

func each(list []string) (out []texts) {
	for _, s := range list {
		out = append(out, texts{s})
	}
	return out
}

func written[T ~int](list []T) (out []string) {
	for _, n := range list {
		out = append(out, strconv.Itoa(int(n)))
	}
	return out
}

// expand gives a case for every combination of the matrix, which may be nil, under what
// is given.
func (m *matrix) expand(c Case, dir string, g *Given) []Case {
	cases := []Case{c}
	labels := [][]string{nil}
	for _, a := range m.axes(dir, g) {
		if len(a.values) == 0 {
			continue
		}
		var nextCases []Case
		var nextLabels [][]string
		for k, c := range cases {
			for i := range a.values {
				each := c
				a.set(&each, i)
				nextCases = append(nextCases, each)
				if len(a.values) > 1 {
					nextLabels = append(nextLabels, append(slices.Clone(labels[k]), a.name+"="+a.values[i]))
				} else {
					nextLabels = append(nextLabels, labels[k])
				}
			}
		}
		cases, labels = nextCases, nextLabels
	}
	for i := range cases {
		g.put(&cases[i])
		if len(labels[i]) > 0 {
			cases[i].Name = fmt.Sprintf("%s [%s]", cases[i].Name, strings.Join(labels[i], ", "))
		}
	}
	return cases
}

// shortened are lists of files, each file by as few of the last parts of its path as
// tell the lists apart.
func shortened(values []texts) []string {
	var short []string
	for parts := 1; parts < 8; parts++ {
		short = nil
		for _, list := range values {
			var names []string
			for _, path := range list {
				names = append(names, lastParts(path, parts))
			}
			short = append(short, strings.Join(names, "+"))
		}
		if len(slices.Compact(slices.Sorted(slices.Values(short)))) == len(values) {
			break
		}
	}
	return short
}

func lastParts(path string, n int) string {
	parts := strings.Split(path, string(filepath.Separator))
	return strings.Join(parts[max(0, len(parts)-n):], string(filepath.Separator))
}

// Named tells whether a case's name has a text, or matches a /regular expression/.
func Named(name, text string) (bool, error) {
	p, err := console.ParsePattern(text)
	return err == nil && p.In(name), err
}
