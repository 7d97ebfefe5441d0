package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Where husk is to come to (issue "A stock Linux kernel boots from the command line").
const memoryGoalMiB = 8

// maxLines is how much of a breakdown people are shown; the JSON has all.
const maxLines = 24

// write prints the figures for people.
func (r *result) write(w io.Writer) error {
	var b strings.Builder
	r.writeHost(&b)
	if len(r.Monitors) > 0 {
		r.writeBoots(&b)
	}
	r.writeIO(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeBoots prints what booting took.
func (r *result) writeBoots(b *strings.Builder) {
	r.writeTable(b)
	var names []string
	for _, m := range r.Monitors {
		names = append(names, m.Name)
	}
	r.writeBreakdown(b, "exits by reason", names, func(d *breakdown) map[string]uint64 { return d.Exits })
	pair := []string{nameHusk, nameReference}
	for _, part := range []struct {
		title string
		of    func(*breakdown) map[string]uint64
	}{
		{"port I/O", func(d *breakdown) map[string]uint64 { return d.PIO }},
		{"MSRs", func(d *breakdown) map[string]uint64 { return d.MSR }},
		{"CPUID leaves", func(d *breakdown) map[string]uint64 { return d.CPUID }},
		{"MMIO pages", func(d *breakdown) map[string]uint64 { return d.MMIO }},
		{"page faults by error code", func(d *breakdown) map[string]uint64 { return d.Fault }},
	} {
		r.writeBreakdown(b, part.title, pair, part.of)
	}
	r.writeVerdict(b)
}

func (r *result) writeHost(b *strings.Builder) {
	h := r.Host
	where := "this host"
	if h.Lab {
		where = "the lab, a software machine: seconds follow the exits, and are no host's"
	}
	fmt.Fprintf(b, "Taken %s in %s.\n", r.Taken.Format("2006-01-02 15:04 MST"), where)
	fmt.Fprintf(b, "%s; %s; huge pages: %s; clock: %s\n", h, strings.Join(h.KVM, ", "), h.HugePages, h.Clock)
	if r.LabHost != nil {
		fmt.Fprintf(b, "The lab ran on %s\n", r.LabHost)
	}
	fmt.Fprintf(b, "Guest: %s, 1 vCPU, %d MiB, %q; medians of %d interleaved rounds\n", r.Kernel, r.Memory, r.Cmdline, r.Rounds)
	for _, m := range r.Monitors {
		fmt.Fprintf(b, "%s: %s\n    %s\n", m.Name, orDash(m.Version), strings.Join(quote(m.Argv), " "))
	}
	if len(r.Skipped) > 0 {
		fmt.Fprintf(b, "Not found: %s\n", strings.Join(r.Skipped, ", "))
	}
	b.WriteByte('\n')
}

func (r *result) writeTable(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "VMM\t")
	for _, f := range figures() {
		fmt.Fprintf(t, "%s\t", f.title)
	}
	fmt.Fprint(t, "boots\t\n")
	for _, m := range r.Monitors {
		fmt.Fprintf(t, "%s\t", m.Name)
		for _, f := range figures() {
			text := "-"
			if v, ok := r.median(m.Name, f.of); ok {
				text = fmt.Sprintf(f.unit, v)
			}
			fmt.Fprintf(t, "%s\t", text)
		}
		fmt.Fprintf(t, "%d of %d\t\n", len(r.of(m.Name)), r.Rounds)
	}
	_ = t.Flush() // into a strings.Builder, which takes everything
	for _, s := range r.Samples {
		if s.Error != "" {
			fmt.Fprintf(b, "%s, round %d: %s\n", s.Monitor, s.Round, s.Error)
		}
	}
}

// writeBreakdown prints a part of the breakdown, if there is anything in it.
func (r *result) writeBreakdown(b *strings.Builder, title string, monitors []string, part func(*breakdown) map[string]uint64) {
	entries := r.breakdown(monitors, part)
	if len(entries) == 0 {
		return
	}
	b.WriteByte('\n')
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s\t%s\t\n", title, strings.Join(monitors, "\t"))
	line := func(name string, medians []float64) {
		fmt.Fprintf(t, "%s\t", name)
		for _, v := range medians {
			fmt.Fprintf(t, "%.0f\t", v)
		}
		fmt.Fprintln(t)
	}
	shown := entries[:min(len(entries), maxLines)]
	for _, e := range shown {
		line(e.name, e.medians)
	}
	if rest := entries[len(shown):]; len(rest) > 0 {
		sum := make([]float64, len(monitors))
		for _, e := range rest {
			for i, v := range e.medians {
				sum[i] += v
			}
		}
		line(fmt.Sprintf("%d others", len(rest)), sum)
	}
	_ = t.Flush()
}

// writeVerdict says how husk stands. It fails nothing: what a loaded host
// measures is no reason to stop a build.
func (r *result) writeVerdict(b *strings.Builder) {
	var parts []string
	ratio := func(title string, f figure) {
		ours, ok := r.median(nameHusk, f)
		theirs, known := r.median(nameReference, f)
		if ok && known && theirs > 0 {
			parts = append(parts, fmt.Sprintf("%s %.2f times (%.4g against %.4g)", title, ours/theirs, ours, theirs))
		}
	}
	ratio("exits", sample.exits)
	ratio("exits without timer", sample.steady)
	ratio("seconds to init", sample.seconds)
	if len(parts) > 0 {
		fmt.Fprintf(b, "\nhusk beside %s: %s\n", nameReference, strings.Join(parts, ", "))
	}
	if mib, ok := r.median(nameHusk, sample.monitorMiB); ok {
		word := "within"
		if mib > memoryGoalMiB {
			word = "over"
		}
		fmt.Fprintf(b, "husk's memory without the guest's RAM: %.1f MiB, %s its %d MiB\n", mib, word, memoryGoalMiB)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// quote makes arguments that a shell takes as they are.
func quote(argv []string) []string {
	var list []string
	for _, a := range argv {
		if a == "" || strings.ContainsAny(a, " \t\n'\"$\\*?&;|<>()`") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		list = append(list, a)
	}
	return list
}
