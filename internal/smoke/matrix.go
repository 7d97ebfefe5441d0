package smoke

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/huskvm/husk/internal/smoke/console"
)

// An axis is one dimension of a matrix: the values of one property.
type axis struct {
	name   string
	values []string             // as they stand in a case's name
	set    func(c *Case, i int) // gives the case value i
}

// Expand gives every combination of values for kernels, command lines, processors and
// memory, each added to or put in the place of the case's own; an empty list leaves that
// alone. The names tell what differs.
func Expand(c Case, kernels, appends []string, cpus []int, memory []string) []Case {
	m := &matrix{Kernel: kernels, Append: appends, Memory: memory}
	for _, n := range cpus {
		m.CPUs = append(m.CPUs, number(n))
	}
	return m.expand(c, "")
}

// expand gives a case for every combination of the matrix, which may be nil.
func (m *matrix) expand(c Case, dir string) []Case {
	if m == nil {
		return []Case{c}
	}
	written := func(list numbers) (out []string) {
		for _, n := range list {
			out = append(out, strconv.Itoa(int(n)))
		}
		return out
	}
	joined := func(list []texts) (out []string) {
		for _, t := range list {
			out = append(out, strings.Join(t, "+"))
		}
		return out
	}
	axes := []axis{
		{"kernel", m.Kernel, func(c *Case, i int) { c.Kernel = within(dir, m.Kernel[i]) }},
		{"initrd", joined(m.Initrd), func(c *Case, i int) { c.Initrds = filesOf(m.Initrd[i], dir, within) }},
		{"append", m.Append, func(c *Case, i int) { c.Append = AddWords(c.Append, m.Append[i]) }},
		{"cpus", written(m.CPUs), func(c *Case, i int) { c.CPUs = int(m.CPUs[i]) }},
		{"memory", m.Memory, func(c *Case, i int) { c.Memory = m.Memory[i] }},
		{"disks", joined(m.Disks), func(c *Case, i int) { c.Disks = filesOf(m.Disks[i], dir, diskWithin) }},
	}
	cases := []Case{c}
	labels := [][]string{nil}
	for _, a := range axes {
		if len(a.values) == 0 {
			continue
		}
		var nextCases []Case
		var nextLabels [][]string
		names := shortened(a.values)
		for k, c := range cases {
			for i := range a.values {
				each := c
				a.set(&each, i)
				nextCases = append(nextCases, each)
				if len(a.values) > 1 {
					nextLabels = append(nextLabels, append(slices.Clone(labels[k]), a.name+"="+names[i]))
				} else {
					nextLabels = append(nextLabels, labels[k])
				}
			}
		}
		cases, labels = nextCases, nextLabels
	}
	for i := range cases {
		if len(labels[i]) > 0 {
			cases[i].Name = fmt.Sprintf("%s [%s]", cases[i].Name, strings.Join(labels[i], ", "))
		}
	}
	return cases
}

// shortened are paths by as few of their last parts as tells them apart; what is no
// path stays as it is.
func shortened(values []string) []string {
	for parts := 1; parts < 8; parts++ {
		short := make([]string, len(values))
		for i, v := range values {
			short[i] = lastParts(v, parts)
		}
		if slices.Compare(short, values) == 0 || len(slices.Compact(slices.Sorted(slices.Values(short)))) == len(values) {
			return short
		}
	}
	return values
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
