package detect

import (
	"strings"
	"testing"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
)

// lines gives a detector a text line by line, each a millisecond later.
func lines(d *Detector, text string) {
	for i, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		s, l, _ := console.ParseStamp(l)
		at := time.Duration(i) * time.Millisecond
		d.Line(console.Line{Start: at, End: at, Kernel: s.Kernel, Text: l})
	}
}

const died = "[    2.000000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n" +
	"[    2.000001] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ]---\n"

// TestReport has a machine report a panic, before or after the console tells of it,
// or without that: it is found once, and not at all where it is allowed.
func TestReport(t *testing.T) {
	for _, c := range []struct {
		name   string
		off    []Kind
		allow  string
		text   string
		report string
		want   string
		counts bool
	}{
		{name: "not on the console", report: "by pvpanic", want: "panic", counts: true},
		{name: "the kernel's line", report: "[    2.000000] Kernel panic - not syncing: VFS: Unable to mount root fs", want: "no-root", counts: true},
		{name: "on the console", text: died, report: "by pvpanic", want: "init-killed", counts: true},
		{name: "with its cause", text: strings.SplitAfter(warned, "[    2")[0] + "x", report: "by pvpanic", want: "warning panic", counts: true},
		{name: "allowed by its summary", allow: "panic=pvpanic", report: "by pvpanic"},
		{name: "something else allowed", allow: "panic=x", report: "by pvpanic", want: "panic", counts: true},
		{name: "the kernel's line allowed", allow: "init-killed=exitcode", report: "Kernel panic - not syncing: Attempted to kill init! exitcode=1"},
		{name: "allowed on the console", allow: "/exitcode=0x00000100/", text: died, report: "by pvpanic"},
		{name: "off", off: []Kind{KernelPanic}, report: "by pvpanic"},
		{name: "off on the console", off: []Kind{InitKilled}, text: died, report: "by pvpanic"},
	} {
		for _, first := range []bool{true, false} {
			config := Config{Off: c.off}
			if c.allow != "" {
				a, err := ParseAllow(c.allow)
				if err != nil {
					t.Fatal(err)
				}
				config.Allow = []Allow{a}
			}
			d, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			counts := true
			report := func() { counts = d.Report(KernelPanic, 3*time.Millisecond, c.report) }
			d.Entered()
			if first && c.text == died {
				report()
			}
			if c.text != "" {
				lines(d, c.text)
			}
			report() // and once more: it is seen by pvpanic, and when the machine is reset
			if counts != c.counts || kindsOf(d) != c.want || !d.Fatal() {
				t.Errorf("%s (report first: %v): %q, counts %v; want %q, %v", c.name, first, kindsOf(d), counts, c.want, c.counts)
			}
			for _, f := range d.Findings() {
				if f.Event != 1 {
					t.Errorf("%s (report first: %v): event %d of %s", c.name, first, f.Event, f.Kind)
				}
			}
		}
	}
}

func TestReportTripleFault(t *testing.T) {
	d, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	lines(d, "[    1.000000] x\n")
	for range 2 {
		if !d.Report(TripleFault, time.Second, "vCPU 0") {
			t.Error("it does not count")
		}
	}
	if f := d.Findings(); len(f) != 1 || f[0].Kind != "triple-fault" || f[0].At != time.Second || f[0].Summary != "vCPU 0" || len(f[0].Trace) != 0 {
		t.Errorf("%+v", f)
	}
	if d, err = New(Config{Off: []Kind{TripleFault}}); err != nil {
		t.Fatal(err)
	}
	if d.Report(TripleFault, time.Second, "vCPU 0") || len(d.Findings()) > 0 {
		t.Error("found though it is off")
	}
}

// A later boot's panic is another one.
func TestReportOfTheNextBoot(t *testing.T) {
	a, err := ParseAllow("/exitcode=0x00000100/")
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Allow: []Allow{a}})
	if err != nil {
		t.Fatal(err)
	}
	lines(d, died)
	d.Entered()
	if d.Fatal() || !d.Report(KernelPanic, time.Hour, "by pvpanic") || kindsOf(d) != "panic" {
		t.Errorf("%q, fatal %v", kindsOf(d), d.Fatal())
	}
}

// TestReportedRebootLoop resets a machine: the detector's own count is not of these.
func TestReportedRebootLoop(t *testing.T) {
	const boot = "[    0.000000] Linux version 6.1.0\n[    1.000000] reboot: machine restart\n"
	d, err := New(Config{RebootLoop: 3})
	if err != nil {
		t.Fatal(err)
	}
	for range 9 {
		d.Entered()
		lines(d, boot)
	}
	if got := kindsOf(d); got != "" {
		t.Errorf("%q by what the machine counts", got)
	}
	if !d.Report(RebootLoop, time.Hour, "9 times") || kindsOf(d) != "reboot-loop" {
		t.Error("not reported")
	}
	kexec := strings.Repeat("[    0.000000] Linux version 6.1.0\n[    1.000000] kexec_core: Starting new kernel\n", 5)
	if lines(d, kexec); kindsOf(d) != "reboot-loop" {
		t.Errorf("%q, doubled", kindsOf(d))
	}

	if d, err = New(Config{RebootLoop: 3}); err != nil {
		t.Fatal(err)
	}
	if lines(d, kexec); kindsOf(d) != "reboot-loop" || !d.Report(RebootLoop, time.Hour, "9 times") || kindsOf(d) != "reboot-loop" {
		t.Errorf("%q, of kernels that start others", kindsOf(d))
	}
}
