package ktap

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

var stamp = regexp.MustCompile(`^\[ *(\d+)\.(\d{6})\]( ?)`)

// lines makes a console of a log: the kernel's stamps are taken off, and a line
// comes each millisecond.
func lines(log string) []console.Line {
	var out []console.Line
	for i, text := range strings.Split(strings.TrimSuffix(log, "\n"), "\n") {
		l := console.Line{Kernel: -1, Text: text}
		l.Start = time.Duration(i) * time.Millisecond
		l.End = l.Start + time.Microsecond
		if m := stamp.FindStringSubmatch(text); m != nil {
			s, _ := strconv.Atoi(m[1])
			us, _ := strconv.Atoi(m[2])
			l.Kernel = time.Duration(s)*time.Second + time.Duration(us)*time.Microsecond
			l.Text = text[len(m[0]):]
		}
		out = append(out, l)
	}
	return out
}

func parsed(log string) *Parser {
	var p Parser
	for _, l := range lines(log) {
		p.Line(l)
	}
	return &p
}

// show writes what was found, for the golden files.
func show(p *Parser) string {
	var b strings.Builder
	for _, t := range p.Subtests() {
		word := "FAIL"
		if t.OK {
			word = "ok"
		}
		if t.Skip {
			word += " skip"
		}
		if t.Todo {
			word += " todo"
		}
		fmt.Fprintf(&b, "%s\t%s\n", word, t.Name)
		if t.Detail != "" {
			b.WriteString("\t| " + strings.ReplaceAll(t.Detail, "\n", "\n\t| ") + "\n")
		}
	}
	for _, problem := range p.Problems() {
		b.WriteString("problem\t" + problem + "\n")
	}
	return b.String()
}

func TestLogs(t *testing.T) {
	logs, err := filepath.Glob("testdata/*.log")
	require.NoError(t, err)
	require.NotEmpty(t, logs)
	for _, path := range logs {
		t.Run(filepath.Base(path), func(t *testing.T) {
			log, err := os.ReadFile(path)
			require.NoError(t, err)
			p := parsed(string(log))
			got := show(p)
			require.Equal(t, got, show(p), "asking changes nothing")

			golden := strings.TrimSuffix(path, ".log") + ".golden"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

func TestTimes(t *testing.T) {
	p := parsed("boot\nTAP version 13\n1..2\nok 1 a\n# slow\nok 2 b\n")
	us := time.Microsecond
	require.Equal(t, []result.Subtest{
		{Name: "a", OK: true, At: 3001 * us, Duration: 2000 * us},
		{Name: "b", OK: true, At: 5001 * us, Duration: 2000 * us, Detail: "slow"},
	}, p.Subtests())
}
