package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/huskvm/husk/tests/bench/load"
)

// An ioFigure is what of a load is shown.
type ioFigure struct {
	load  string
	title string
	of    func(ioLoad) (float64, bool)
	unit  string // Printf's verb
	most  bool   // the larger, the better
}

func known(f func(ioLoad) float64) func(ioLoad) (float64, bool) {
	return func(l ioLoad) (float64, bool) { return f(l), l.Seconds > 0 && l.Ops > 0 }
}

// ioFigures are the rows of the table.
func ioFigures() []ioFigure {
	mb := known(func(l ioLoad) float64 { return l.Throughput() / 1e6 })
	gb := known(func(l ioLoad) float64 { return l.Throughput() * 8 / 1e9 })
	rate := known(func(l ioLoad) float64 { return l.Rate() })
	perOp := func(l ioLoad) (float64, bool) {
		n, ok := l.KVM["exits"]
		return float64(n) / float64(l.Ops), ok && l.Ops > 0
	}
	perMB := func(l ioLoad) (float64, bool) {
		n, ok := l.KVM["exits"]
		return float64(n) / (float64(l.Bytes) / 1e6), ok && l.Bytes > 0
	}
	var list []ioFigure
	for _, l := range []struct {
		name, unit string
		of         func(ioLoad) (float64, bool)
	}{
		{load.ReadSeq, "MB/s", mb},
		{load.WriteSeq, "MB/s", mb},
		{load.ReadAlone, "IOPS", rate},
		{load.WriteAlone, "IOPS", rate},
		{load.ReadDeep, "IOPS", rate},
		{load.WriteDeep, "IOPS", rate},
		{load.TCPOut, "Gb/s", gb},
		{load.TCPIn, "Gb/s", gb},
		{load.TCPTrips, "per second", rate},
	} {
		verb := "%.0f"
		exits, cost := perOp, "exits per I/O"
		switch l.name {
		case load.TCPOut, load.TCPIn:
			verb, exits, cost = "%.3f", perMB, "exits per MB"
		case load.TCPTrips:
			cost = "exits per round trip"
		}
		list = append(list,
			ioFigure{l.name, l.name + ": " + l.unit, l.of, verb, true},
			ioFigure{l.name, l.name + ": " + cost, exits, "%.2f", false})
	}
	return list
}

// ioMedian is the median of a figure over a monitor's samples.
func (r *result) ioMedian(monitor string, f ioFigure) (float64, bool) {
	var values []float64
	for _, s := range r.IOSamples {
		for _, l := range s.Loads {
			if v, ok := f.of(l); ok && s.Monitor == monitor && l.Name == f.load {
				values = append(values, v)
			}
		}
	}
	return median(values)
}

// writeIO prints the table of disk and network, with husk beside the best of
// the others.
func (r *result) writeIO(b *strings.Builder) {
	if len(r.IOMonitors) == 0 {
		return
	}
	fmt.Fprintf(b, "\nDisk and network: 1 vCPU, %d MiB, a raw image of %d MiB in the host's memory, page cache of the host; TCP to a server at a tap\n", r.Memory, imageMiB)
	for _, m := range r.IOMonitors {
		fmt.Fprintf(b, "%s: %s\n    %s\n", m.Name, orDash(m.Version), strings.Join(quote(m.Argv), " "))
	}
	b.WriteByte('\n')
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t")
	for _, m := range r.IOMonitors {
		fmt.Fprintf(t, "%s\t", m.Name)
	}
	fmt.Fprint(t, "husk / best other\t\n")
	for _, f := range ioFigures() {
		r.writeIORow(t, f)
	}
	_ = t.Flush() // into a strings.Builder, which takes everything
	for _, s := range r.IOSamples {
		if s.Error != "" {
			fmt.Fprintf(b, "%s, round %d: %s\n", s.Monitor, s.Round, s.Error)
		}
	}
}

// writeIORow prints a row, unless nobody has a figure for it.
func (r *result) writeIORow(t *tabwriter.Writer, f ioFigure) {
	var cells []string
	best, others, found := 0.0, 0, false
	for _, m := range r.IOMonitors {
		v, ok := r.ioMedian(m.Name, f)
		if !ok {
			cells = append(cells, "-")
			continue
		}
		found = true
		cells = append(cells, fmt.Sprintf(f.unit, v))
		if m.Name == nameHusk {
			continue
		}
		if others++; others == 1 || (v > best) == f.most {
			best = v
		}
	}
	if !found {
		return
	}
	ratio := "-"
	if ours, ok := r.ioMedian(nameHusk, f); ok && best > 0 {
		ratio = fmt.Sprintf("%.2f", ours/best)
	}
	fmt.Fprintf(t, "%s\t%s\t%s\t\n", f.title, strings.Join(cells, "\t"), ratio)
}
