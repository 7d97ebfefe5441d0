package main

import (
	"maps"
	"slices"
)

// median is the middle of the values, of an even number the mean of both in
// the middle. It says nothing of no values.
func median(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	v := slices.Sorted(slices.Values(values))
	middle := len(v) / 2
	if len(v)%2 == 1 {
		return v[middle], true
	}
	return (v[middle-1] + v[middle]) / 2, true
}

// A figure takes a value from a sample, and tells whether it is there.
type figure func(sample) (float64, bool)

// The figures of the table.
func figures() []struct {
	title string
	of    figure
	unit  string // of printing: Printf's verb
} {
	return []struct {
		title string
		of    figure
		unit  string
	}{
		{"exits to init", sample.exits, "%.0f"},
		{"without timer", sample.steady, "%.0f"},
		{"port I/O", counter("io_exits"), "%.0f"},
		{"page faults fixed", counter("pf_fixed"), "%.0f"},
		{"seconds to init", sample.seconds, "%.3f"},
		{"VMM memory, MiB", sample.monitorMiB, "%.1f"},
		{"CPU ms to first KVM_RUN", sample.cpuMillis, "%.1f"},
	}
}

func counter(name string) figure {
	return func(s sample) (float64, bool) { return s.counter(name) }
}

func (s sample) seconds() (float64, bool) { return s.SecondsToInit, s.SecondsToInit > 0 }

func (s sample) monitorMiB() (float64, bool) {
	if s.Memory == nil {
		return 0, false
	}
	return float64(s.Memory.Monitor) / (1 << 20), true
}

func (s sample) cpuMillis() (float64, bool) {
	if s.CPUToFirstRun == nil {
		return 0, false
	}
	return *s.CPUToFirstRun * 1000, true
}

// of are the samples of one monitor that have figures.
func (r *result) of(monitor string) []sample {
	var list []sample
	for _, s := range r.Samples {
		if s.Monitor == monitor && s.Error == "" {
			list = append(list, s)
		}
	}
	return list
}

// median is the median of a figure over a monitor's samples.
func (r *result) median(monitor string, f figure) (float64, bool) {
	var values []float64
	for _, s := range r.of(monitor) {
		if v, ok := f(s); ok {
			values = append(values, v)
		}
	}
	return median(values)
}

// An entry is one line of a breakdown.
type entry struct {
	name    string
	medians []float64 // of each monitor
}

// breakdown gives the medians of a part of the breakdown for some monitors, with
// what the first has most of on top. A name that a boot does not have counts
// as zero there.
func (r *result) breakdown(monitors []string, part func(*breakdown) map[string]uint64) []entry {
	names := map[string]bool{}
	for _, m := range monitors {
		for _, s := range r.of(m) {
			if s.Traced != nil {
				for name := range part(s.Traced) {
					names[name] = true
				}
			}
		}
	}
	var entries []entry
	for _, name := range slices.Sorted(maps.Keys(names)) {
		e := entry{name: name}
		for _, m := range monitors {
			v, _ := r.median(m, func(s sample) (float64, bool) {
				if s.Traced == nil {
					return 0, false
				}
				return float64(part(s.Traced)[name]), true
			})
			e.medians = append(e.medians, v)
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return slices.Compare(b.medians, a.medians) })
	return entries
}
