package report

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

// screen is as much of a terminal as NewLive uses, and complains of anything else.
type screen struct {
	t *testing.T

	mu      sync.Mutex
	columns int
	lines   []string // all that were ever there, without an end
	row     int      // in lines, of the cursor
	column  int
	writes  int
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	// One character a column: the dots of what was cut become a "~".
	text := strings.ReplaceAll(string(p), "…", "~")
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b[A"):
			s.row = max(s.row-1, 0)
			text = text[3:]
		case strings.HasPrefix(text, "\x1b[2K"):
			s.lines[s.row] = ""
			text = text[4:]
		case strings.HasPrefix(text, "\x1b["): // colours
			end := strings.IndexByte(text, 'm')
			require.Positive(s.t, end)
			_, err := strconv.Atoi(text[2:end])
			require.NoError(s.t, err, "%q", text)
			text = text[end+1:]
		case text[0] == '\r':
			s.column, text = 0, text[1:]
		case text[0] == '\n':
			s.row, s.column, text = s.row+1, 0, text[1:]
			s.line()
		default:
			require.True(s.t, text[0] >= ' ' && text[0] < 0x7f, "%q", text)
			if s.column == s.columns {
				s.row, s.column = s.row+1, 0
			}
			line := s.line()
			s.lines[s.row] = line[:s.column] + text[:1] + line[min(s.column+1, len(line)):]
			s.column, text = s.column+1, text[1:]
		}
	}
	return len(p), nil
}

// line is the one that the cursor is in.
func (s *screen) line() string {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
	return s.lines[s.row]
}

// resize wraps what stands there, as terminals do.
func (s *screen) resize(columns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, line := range s.lines[:s.row+1] { // below are empty ones
		for len(line) > columns {
			lines, line = append(lines, line[:columns]), line[columns:]
		}
		lines = append(lines, line)
	}
	s.columns, s.lines = columns, lines
	s.row, s.column = len(lines)-1, len(lines[len(lines)-1])
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	below := strings.Join(s.lines[s.row+1:], "")
	require.Empty(s.t, below, "nothing is below the cursor")
	return strings.Join(s.lines[:s.row+1], "\n")
}

func (s *screen) size() (columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.columns, 18
}

func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{t: t, columns: 60}
		run := sample()
		p := NewLive(s, Options{Cases: len(run.Cases), Color: true, Size: s.size})
		defer p.Close()
		for i := range run.Cases {
			p.CaseStarted(run.Cases[i].Name)
		}
		p.StageReached("retried", "drivers", 70*time.Millisecond)
		time.Sleep(1250 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, strings.Join([]string{
			"    1.2 s  plain/cpus=2: starting",
			"    1.2 s  retried: drivers",
			"    1.2 s  init | <exits> #1: starting",
			"    1.2 s  hangs: starting",
			"    1.2 s  kunit: starting",
			"    1.2 s  command: starting",
			"    1.2 s  no kvm: starting",
			"          and 2 more",
			"    1.2 s  0 of 9 done, 9 running",
		}, "\n"), s.String())

		p.CaseDone(&run.Cases[0])
		p.CaseDone(&run.Cases[3])
		p.CaseStarted("retried") // once more
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, strings.Join([]string{
			"pass             1.24 s  plain/cpus=2",
			"hang             33.4 s  hangs: no output for 30 s (reached ",
			"drivers)",
			"    1.3 s  init | <exits> #1: starting",
			"    1.3 s  kunit: starting",
			"    1.3 s  command: starting",
			"    1.3 s  no kvm: starting",
			"    1.3 s  broken: starting",
			"    1.3 s  not begun: starting",
			"    0.1 s  retried: attempt 2: starting",
			"    1.3 s  2 of 9 done, 7 running, 1 failed",
		}, "\n"), s.String())

		// Narrower: lines that stood there are wrapped, and must go all the same.
		s.resize(22)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		require.Contains(t, s.String(), "drivers)\n    1.4 s  init | <e~\n")
		s.resize(60)

		for _, i := range []int{1, 2, 4, 5, 6, 7, 8} {
			p.CaseDone(&run.Cases[i])
		}
		require.NoError(t, p.Close())
		require.NoError(t, p.Close(), "twice does no harm")
		final := strings.ReplaceAll(s.String(), "\n", "") // unwrapped
		require.NotContains(t, final, "starting")
		require.NotContains(t, final, "running")
		require.True(t, strings.HasSuffix(final, "9 cases in 1.45 s: 2 pass (1 flaky), 2 fail, 1 detected, 1 hang, 1 vmm, 1 infrastructure, 1 skipped"), final)
		for i := range run.Cases {
			require.Equal(t, 1, strings.Count(final, "s  "+run.Cases[i].Name), run.Cases[i].Name)
		}
	})
}

func TestLiveIsDrawnSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{t: t, columns: 80}
		p := NewLive(s, Options{Cases: 1000})
		for i := range 1000 {
			name := fmt.Sprint("case ", i)
			p.CaseStarted(name)
			p.StageReached(name, "memory", time.Millisecond)
			p.CaseDone(&result.Case{Name: name, Verdict: result.Pass})
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, p.Close())
		require.LessOrEqual(t, s.writes, 11, "in a second")
		require.Equal(t, 1000, strings.Count(s.String(), "  case "))
	})
}

// stuck is a terminal that is stopped after some writes, or slow.
type stuck struct {
	after   int // writes
	slow    time.Duration
	goOn    chan struct{}
	written strings.Builder
}

func (s *stuck) Write(p []byte) (int, error) {
	if s.after--; s.after < 0 {
		<-s.goOn
	}
	time.Sleep(s.slow)
	return s.written.Write(p)
}

// TestLiveOfAStoppedTerminal stops one: no case waits for it, and Close not for long.
func TestLiveOfAStoppedTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{after: 1, goOn: make(chan struct{})}
		p := NewLive(s, Options{Cases: 1000})
		time.Sleep(time.Second)
		begun := time.Now()
		for i := range 1000 {
			name := fmt.Sprint("case ", i)
			p.CaseStarted(name)
			p.StageReached(name, "memory", time.Millisecond)
			p.CaseDone(&result.Case{Name: name, Verdict: result.Pass})
		}
		require.Zero(t, time.Since(begun))
		require.ErrorContains(t, p.Close(), "Ctrl-S")
		require.Equal(t, 2*time.Second, time.Since(begun))
		close(s.goOn)
		synctest.Wait()
		require.NotContains(t, s.written.String(), "1000 cases", "nothing comes late")
	})
}

// TestLiveOfASlowTerminal has one take all of the end, though that takes long.
func TestLiveOfASlowTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{after: 1000, slow: time.Second}
		p := NewLive(s, Options{Cases: 1000})
		for i := range 1000 {
			p.CaseDone(&result.Case{Name: fmt.Sprint("case ", i), Verdict: result.Pass})
		}
		require.NoError(t, p.Close())
		require.Equal(t, 1000, strings.Count(s.written.String(), "  case "))
		require.Contains(t, s.written.String(), "1000 cases")
	})
}

func TestLiveLeavesNothingOfATinyTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for columns := 1; columns < 5; columns++ {
			s := &screen{t: t, columns: columns}
			p := NewLive(s, Options{Cases: 1, Size: func() (int, int) { return columns, 1 }})
			p.CaseStarted("a case")
			time.Sleep(time.Second)
			require.NoError(t, p.Close())
			require.Equal(t, "1casein1.00s:1notrun", strings.NewReplacer("\n", "", " ", "").Replace(s.String()), "%d", columns)
		}
	})
}

func TestWidth(t *testing.T) {
	require.Equal(t, 5, width("Grüße"))
	require.Equal(t, 4, width("日本"))
	require.Equal(t, 1, width("e\u0301"))
	require.Equal(t, "日…", clip("日本語", 4))
	require.Equal(t, "", clip("日本語", 0))
	require.Equal(t, "日本", clip("日本", 4))
}
