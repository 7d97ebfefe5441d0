package detect

import (
	"reflect"
	"testing"
)

// FuzzCuts gives a console in three pieces, cut anywhere: the findings are those of
// the whole.
func FuzzCuts(f *testing.F) {
	for i, s := range samples(f) {
		f.Add([]byte(s.text), uint16(i*37), uint16(i*111))
	}
	f.Add([]byte("\x1b[31m[    1.000000] BUG: x\r\r\n\x1b]0;[    2.000000] Kernel panic - not syncing: y\n"), uint16(3), uint16(9))
	f.Fuzz(func(t *testing.T, text []byte, a, b uint16) {
		i, j := min(int(a), len(text)), min(int(b), len(text))
		i, j = min(i, j), max(i, j)
		d := run(t, Config{}, string(text))
		want := timeless(d.Findings())
		cut := run(t, Config{}, string(text[:i]), string(text[i:j]), string(text[j:]))
		if got := timeless(cut.Findings()); !reflect.DeepEqual(got, want) || cut.Open() != d.Open() || cut.Fatal() != d.Fatal() {
			t.Errorf("%q cut at %d and %d: %+v, want %+v", text, i, j, got, want)
		}
		for _, f := range want {
			if f.Event < 1 || f.Event > len(want) || len(f.Trace) == 0 || f.Summary == "" {
				t.Errorf("%q: %+v", text, f)
			}
		}
	})
}
