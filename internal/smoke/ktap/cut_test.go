package ktap

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCut ends a guest in the midst of its tests: only what went wrong before counts.
func TestCut(t *testing.T) {
	const suites = "KTAP version 1\n1..3\n" +
		"    KTAP version 1\n    # Subtest: first\n    1..1\n    ok 1 a\n" +
		"%s    KTAP version 1\n    # Subtest: second\n    1..4\n    ok 1 b\n    # c is slow\n"
	for _, c := range []struct {
		name, log      string
		cut, otherwise string
	}{
		{"behind the version", "TAP version 13\n", "", "problem\ta version line, and no test behind it\n"},
		{
			"behind a test", "TAP version 13\n1..2\nok 1 a\n", "ok\ta\n",
			"ok\ta\nFAIL\tmissing test 2\n\t| it has not reported a result\nproblem\tplanned 2, saw 1\n",
		},
		{"in a suite", strings.Replace(suites, "%s", "ok 1 first\n", 1), "ok\tfirst.a\nok\tsecond.b\n", "*"},
		{
			"behind a suite", "KTAP version 1\n1..2\n    # Subtest: first\n    1..1\n    ok 1 a\n", "ok\tfirst.a\n",
			"*",
		},
		{"a failure", "TAP version 13\n1..3\nnot ok 1 a\n", "FAIL\ta\n", "*"},
		{
			"a suite without a result", strings.Replace(suites, "%s", "", 1),
			"ok\tfirst.a\nok\tsecond.b\nFAIL\tfirst\n\t| it has not reported a result\n", "*",
		},
		{"too many", "TAP version 13\n1..1\nok 1 a\nok 2 b\n", "ok\ta\nok\tb\nproblem\tplanned 1, saw 2\n", "*"},
		{
			"an earlier one's plan", "TAP version 13\n1..2\nok 1 a\nTAP version 13\n1..2\nok 1 b\n",
			"ok\ta\nFAIL\tmissing test 2\n\t| it has not reported a result\nok\tb\nproblem\tplanned 2, saw 1\n", "*",
		},
	} {
		p := parsed(c.log)
		if c.otherwise != "*" {
			require.Equal(t, c.otherwise, show(p), c.name)
		}
		p.Cut()
		require.Equal(t, c.cut, show(p), c.name)
	}
}

// TestCutAnywhere ends a guest behind each line: nothing has failed that would not
// have with the rest.
func TestCutAnywhere(t *testing.T) {
	for _, name := range []string{"boot", "kselftest", "kselftest-mm", "kunit-5.15", "kunit-6.6", "kunit-modules-6.6", "tap14", "perl"} {
		log, err := os.ReadFile("testdata/" + name + ".log")
		require.NoError(t, err)
		text := strings.SplitAfter(string(log), "\n")
		whole := show(parsed(string(log)))
		for i := range text {
			p := parsed(strings.Join(text[:i], ""))
			p.Cut()
			for _, line := range strings.Split(show(p), "\n") {
				if strings.HasPrefix(line, "FAIL") || strings.HasPrefix(line, "problem") {
					require.Contains(t, whole, line, "%s behind line %d", name, i)
				}
			}
		}
	}
}
