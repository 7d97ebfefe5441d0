package ktap

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
)

func TestABadGuestIsBounded(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, line := range map[string]func(i int) string{
		"tests":       func(i int) string { return fmt.Sprintf("not ok %d %s # %s", i, long, long) },
		"the same":    func(int) string { return "ok 1 again" },
		"notes":       func(int) string { return "# " + long },
		"plans":       func(i int) string { return fmt.Sprintf("1..%d", i) },
		"nesting":     func(i int) string { return strings.Repeat(" ", i%1000*2) + "TAP version 13" },
		"quoting":     func(int) string { return strings.Repeat("# ", 5000) + "ok" },
		"subtests":    func(i int) string { return fmt.Sprintf("# Subtest: %d%s", i, long) },
		"suites":      func(i int) string { return fmt.Sprintf("    # Subtest: %d%s\n    1..999999999", i, long) },
		"documents":   func(int) string { return "TAP version 13\n1..999999999" },
		"YAML":        func(i int) string { return fmt.Sprintf("ok %d\n  ---\n  %s", i, long) },
		"programs":    func(i int) string { return fmt.Sprintf("ci[%d]: TAP version 13", i) },
		"behind":      func(int) string { return "#   Failed test\n# " + long },
		"bailing out": func(int) string { return "    1..2\n    Bail out! " + long },
	} {
		t.Run(name, func(t *testing.T) {
			var p Parser
			begun := time.Now()
			p.Line(console.Line{Kernel: -1, Text: "TAP version 13"})
			p.Line(console.Line{Kernel: -1, Text: "ok 1"})
			for i := range 2000 {
				for _, text := range strings.Split(line(i+2), "\n") {
					p.Line(console.Line{Kernel: -1, Text: text})
				}
			}
			tests, problems := p.Subtests(), p.Problems()
			size := 0
			for _, s := range tests {
				size += len(s.Name) + len(s.Detail)
			}
			for _, s := range problems {
				size += len(s)
			}
			require.LessOrEqual(t, len(tests), maxTests)
			require.LessOrEqual(t, len(problems), maxProblems+1)
			require.Less(t, size, maxDetails+len(tests)*(maxName+64)+len(problems)*(maxName+maxNote+64))
			require.Less(t, time.Since(begun), time.Minute)
		})
	}
}

func TestTheMostTests(t *testing.T) {
	var p Parser
	p.Line(console.Line{Kernel: -1, Text: "TAP version 13"})
	p.Line(console.Line{Kernel: -1, Text: fmt.Sprintf("1..%d", maxTests+5)})
	for i := range maxTests + 5 {
		p.Line(console.Line{Kernel: -1, Text: fmt.Sprintf("ok %d", i+1)})
	}
	require.Len(t, p.Subtests(), maxTests)
	require.Equal(t, []string{"more tests than are kept"}, p.Problems())
}

func TestMissingTestsAreListedUpToSome(t *testing.T) {
	tests := parsed("TAP version 13\n1..1000\nok 2 b\n").Subtests()
	require.Len(t, tests, 1+maxMissing+1)
	require.Equal(t, "missing test 1", tests[1].Name)
	require.Equal(t, "missing test 3", tests[2].Name)
	require.Equal(t, "899 more missing tests", tests[101].Name)
}

// names is what must not depend on what else is on the console.
func names(tests []result.Subtest) []string {
	var out []string
	for _, t := range tests {
		out = append(out, fmt.Sprintf("%v %v %v %s", t.OK, t.Skip, t.Todo, t.Name))
	}
	return out
}

func FuzzParser(f *testing.F) {
	logs, err := filepath.Glob("testdata/*.log")
	require.NoError(f, err)
	for _, path := range logs {
		log, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(string(log))
	}
	f.Add("TAP version 14\n1..1\n# Subtest: a\n    1..1\n    ok 1 - b \\# c # TODO\n      ---\n      x: 1\n      ...\nok 1 - a\n")
	f.Fuzz(func(t *testing.T, log string) {
		all := lines(log)
		var plain, returned, noisy Parser
		begins := false
		reported := 0
		for i, l := range all {
			_, text := origin(l)
			begins = begins || parse(text).begins()
			plain.Line(l)

			l.Text += "\r"
			returned.Line(l)

			// Other writers, in the midst.
			noisy.Line(console.Line{Kernel: 1, Text: fmt.Sprintf("noise[%d]: ok %d - noise", i, i)})
			noisy.Line(all[i])
			noisy.Line(console.Line{Kernel: -1, Text: "noise[1]: 1..7"})

			if i%16 == 0 {
				n := 0
				for _, s := range plain.Subtests() {
					if s.At > 0 {
						n++
					}
				}
				require.GreaterOrEqual(t, n, reported, "a result stays")
				reported = n
			}
		}
		tests := plain.Subtests()
		require.Equal(t, names(tests), names(noisy.Subtests()))
		require.Equal(t, names(tests), names(returned.Subtests()))
		require.Equal(t, plain.Problems(), returned.Problems())
		if !begins {
			require.Empty(t, tests)
			require.Empty(t, plain.Problems())
		}
		for _, s := range tests {
			require.NotEmpty(t, s.Name)
			require.LessOrEqual(t, len(s.Name), maxName)
			require.NotContains(t, s.Name, "\n")
			require.GreaterOrEqual(t, s.Duration, time.Duration(0))
		}
	})
}
