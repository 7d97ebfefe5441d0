package detect

import (
	"strings"
	"testing"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
)

func kindsOf(d *Detector) string {
	var out []string
	for _, f := range d.Findings() {
		out = append(out, f.Kind)
	}
	return strings.Join(out, " ")
}

const warned = `[    1.000000] ------------[ cut here ]------------
[    1.000001] WARNING: CPU: 0 PID: 1 at drivers/a.c:1 a_init+0x1/0x2
[    1.000002] Modules linked in: known
[    1.000003] ---[ end trace 0000000000000000 ]---
[    2.000000] Kernel panic - not syncing: x
[    2.000001] ---[ end Kernel panic - not syncing: x ]---
`

func TestAllow(t *testing.T) {
	for _, c := range []struct{ allow, want string }{
		{"warning=/a_init/", "panic"},
		{"warning=a_init+0x1", "panic"},
		{"/known$/", "panic"}, // any line of the trace, any kind
		{"panic=/not syncing: x/", "warning"},
		{"oops=/a_init/", "warning panic"},
		{"warning=/b_init/", "warning panic"},
		{"/./", ""},
	} {
		a, err := ParseAllow(c.allow)
		if err != nil {
			t.Fatal(err)
		}
		d := run(t, Config{Allow: []Allow{a}}, warned)
		if got := kindsOf(d); got != c.want || !d.Fatal() {
			t.Errorf("allow %s: %q, want %q; fatal %v", c.allow, got, c.want, d.Fatal())
		}
	}
}

// An allowed report must not hide another that comes in the midst of it.
func TestAllowHidesNothingElse(t *testing.T) {
	a, err := ParseAllow("warning=/a_init/")
	if err != nil {
		t.Fatal(err)
	}
	other := strings.ReplaceAll(warned[:strings.Index(warned, "[    1.000003]")], "a_init", "b_init")
	cut := strings.Index(warned, "[    1.000002]")
	d := run(t, Config{Allow: []Allow{a}}, warned[:cut]+other+warned[cut:])
	if got := kindsOf(d); got != "warning panic" || !strings.Contains(d.Findings()[0].Summary, "b_init") {
		t.Errorf("%q: %+v", got, d.Findings())
	}
}

func TestOff(t *testing.T) {
	d := run(t, Config{Off: []Kind{KernelPanic, KASAN}}, warned)
	if got := kindsOf(d); got != "warning" || !d.Fatal() {
		t.Errorf("%q, fatal %v", got, d.Fatal())
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "empty"},
		{"warning", "write warning=/…/"},
		{"warnings=/x/", "is no kind of finding; there are panic,"},
		{"warning=", "empty"},
		{"warning=/(/", "missing closing )"},
		{"a=b", "between slashes"},
	} {
		if _, err := ParseAllow(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
	}
	for _, c := range []Config{{Off: []Kind{"x"}}, {Allow: []Allow{{}}}, {RebootLoop: 1}, {RebootLoop: -1}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v: taken", c)
		}
	}
}

func TestOpen(t *testing.T) {
	d, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range strings.Split(strings.TrimSpace(warned), "\n") {
		s, text, _ := console.ParseStamp(text)
		d.Line(console.Line{Start: time.Duration(i) * time.Millisecond, Kernel: s.Kernel, Text: text})
		if want := i == 1 || i == 2 || i == 4; d.Open() != want {
			t.Errorf("behind line %d: open %v", i, d.Open())
		}
	}
	if f := d.Findings(); len(f) != 2 || f[0].At != time.Millisecond || f[1].At != 4*time.Millisecond || f[0].Event != f[1].Event {
		t.Errorf("%+v", f)
	}
}

func TestBounds(t *testing.T) {
	endless := "[    1.000000] BUG: unable to handle page fault for address: 0\n" + strings.Repeat("[    1.000001]  x+0x1/0x2\n", 3*maxTraceLines)
	d := run(t, Config{}, endless)
	if f := d.Findings(); len(f) != 1 || len(f[0].Trace) != maxTraceLines || !d.Open() {
		t.Errorf("%d findings, open %v", len(f), d.Open())
	}
	d = run(t, Config{}, strings.Repeat(warned, maxFindings))
	if n := len(d.Findings()); n != maxFindings {
		t.Errorf("%d findings, want %d", n, maxFindings)
	}
	lost := "[    1.000000] BUG: unable to handle page fault for address: 0\n" + strings.Repeat("[    1.000001] x\n", lostMarker)
	if run(t, Config{}, lost).Open() {
		t.Error("a trace whose end is lost stays open")
	}
}

func TestRebootLoop(t *testing.T) {
	start := "[    0.000000] Linux version 6.1.0\n[    1.000000] reboot: machine restart\n"
	for _, c := range []struct {
		limit, starts int
		want          string
	}{{0, 2, ""}, {0, 3, "reboot-loop"}, {0, 9, "reboot-loop"}, {2, 1, ""}, {2, 2, "reboot-loop"}, {5, 4, ""}} {
		if got := kindsOf(run(t, Config{RebootLoop: c.limit}, strings.Repeat(start, c.starts))); got != c.want {
			t.Errorf("limit %d, %d starts: %q", c.limit, c.starts, got)
		}
	}
	if d := run(t, Config{Off: []Kind{RebootLoop}}, strings.Repeat(start, 4)); kindsOf(d) != "" {
		t.Error("found though it is off")
	}
}

// A machine that starts again goes on.
func TestFatalUpToTheNextStart(t *testing.T) {
	if d := run(t, Config{}, warned+"[    0.000000] Linux version 6.1.0\n"); d.Fatal() || d.Open() {
		t.Error("fatal though another kernel runs")
	}
}

func BenchmarkLine(b *testing.B) {
	d, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d.Line(console.Line{Kernel: time.Second, Text: "ACPI: Reserving FACP table memory at [mem 0xe0950-0xe0a63]"})
	}
}
