package report

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

func TestPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		run := sample()
		p := NewPlain(&out, Options{Cases: len(run.Cases) + 1})
		for i := range run.Cases {
			p.CaseStarted(run.Cases[i].Name)
			p.StageReached(run.Cases[i].Name, "memory", time.Second)
			p.CaseDone(&run.Cases[i])
		}
		time.Sleep(run.Duration)
		require.NoError(t, p.Close())
		golden(t, "plain.txt", out.String())
		require.NotContains(t, out.String(), "\x1b")
	})
}

func TestPlainOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		require.NoError(t, NewPlain(&out, Options{}).Close())
		require.Equal(t, "0 cases in 0 s\n", out.String())
	})
}

func TestPlainExplainsSome(t *testing.T) {
	var out strings.Builder
	p := NewPlain(&out, Options{Cases: 30})
	for i := range 30 {
		c := hung()
		c.Name = fmt.Sprint("case ", i)
		p.CaseDone(&c)
	}
	require.NoError(t, p.Close())
	require.Equal(t, 20, strings.Count(out.String(), "\n--- case "))
	require.Contains(t, out.String(), "10 failures more")
	require.Contains(t, out.String(), "30 cases in ")
}

func TestPlainIsColoured(t *testing.T) {
	var out strings.Builder
	p := NewPlain(&out, Options{Color: true})
	c := hung()
	p.CaseDone(&c)
	require.Contains(t, out.String(), "\x1b[31mhang          \x1b[0m")
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestErrorsOfWritingAreKept(t *testing.T) {
	c := hung()
	for _, p := range []Progress{NewPlain(full{}, Options{}), NewLive(full{}, Options{})} {
		p.CaseDone(&c)
		require.ErrorContains(t, p.Close(), "no space left")
	}
}

func TestProgressIsConcurrent(t *testing.T) {
	for _, make := range []func(*strings.Builder) Progress{
		func(b *strings.Builder) Progress { return NewPlain(b, Options{Cases: 8}) },
		func(b *strings.Builder) Progress { return NewLive(b, Options{Cases: 8}) },
	} {
		var out strings.Builder
		p := make(&out)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				c := result.Case{Name: fmt.Sprint("case ", i), Verdict: result.Pass}
				p.CaseStarted(c.Name)
				p.StageReached(c.Name, "memory", time.Second)
				p.CaseDone(&c)
			})
		}
		wg.Wait()
		require.NoError(t, p.Close())
		require.Contains(t, out.String(), ": 8 pass\n")
		require.Equal(t, 8, strings.Count(out.String(), "case "))
	}
}

func TestColor(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	require.True(t, Color())
	t.Setenv("NO_COLOR", "1")
	require.False(t, Color())
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	require.False(t, Color())
}
