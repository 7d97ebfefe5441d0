package detect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
)

// A sample is a console log of testdata: most are made by hand from what the
// kernel's sources print, real-* and clean-debian are those of guests of husk. Its
// first line says what is to be found, "want: KIND EVENT LINES", comma separated,
// LINES being those of the trace.
type sample struct {
	name string
	want []string
	text string
}

func samples(t testing.TB) []sample {
	t.Helper()
	names, err := filepath.Glob("testdata/*.log")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	var out []sample
	for _, name := range names {
		all, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		head, text, _ := strings.Cut(string(all), "\n")
		head = strings.TrimPrefix(head, "want:")
		var want []string
		for _, w := range strings.Split(head, ",") {
			if w = strings.TrimSpace(w); w != "" {
				want = append(want, w)
			}
		}
		out = append(out, sample{name: filepath.Base(name), want: want, text: text})
	}
	return out
}

// run gives the pieces of a console to a detector.
func run(t testing.TB, c Config, pieces ...string) *Detector {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	tr := console.New()
	tr.Watch(d.Line)
	for i, p := range pieces {
		tr.Add(time.Duration(i)*time.Millisecond, []byte(p))
	}
	tr.Close()
	return d
}

// timeless is findings without when they came, which a cut may change.
func timeless(fs []result.Finding) []result.Finding {
	for i := range fs {
		fs[i].At = 0
	}
	return fs
}
