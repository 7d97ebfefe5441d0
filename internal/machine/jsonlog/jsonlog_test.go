package jsonlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 24, 12, 0, 0, 5, time.UTC)

func create(t testing.TB) (*Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.json")
	w, err := Create(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return w, path
}

func read(t require.TestingT, path string, o Options) string {
	var b strings.Builder
	require.NoError(t, Read(context.Background(), path, o, func(e Entry) error {
		b.Write(e.Bytes())
		return nil
	}))
	return b.String()
}

func TestForm(t *testing.T) {
	w, path := create(t)
	w.Write(Stdout, []byte("a <b>\nhalf"), start)
	w.Write(Stderr, []byte("\xff\n"), start)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `{"log":"a <b>\n","stream":"stdout","time":"2026-11-24T12:00:00.000000005Z"}
{"log":"half","stream":"stdout","time":"2026-11-24T12:00:00.000000005Z"}
{"log":"`+"\ufffd"+`\n","raw":"/wo=","stream":"stderr","time":"2026-11-24T12:00:00.000000005Z"}
`, strings.ReplaceAll(string(b), `\ufffd`, "\ufffd"))
}

// TestWhatIsWrittenIsRead: all of it, in order, whatever bytes it has and however it came.
func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "jsonlog")
		require.NoError(r, err)
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "log")
		w, err := Create(path)
		require.NoError(r, err)
		defer w.Close()
		var all []byte
		for range rapid.IntRange(0, 8).Draw(r, "pieces") {
			p := rapid.OneOf(
				rapid.SliceOf(rapid.Byte()),
				rapid.Map(rapid.StringOf(rapid.SampledFrom([]rune("ab\nü"))), func(s string) []byte { return []byte(s) }),
				rapid.Map(rapid.IntRange(1, 3*maxEntry), func(n int) []byte { return bytes.Repeat([]byte("ü"), n) }),
			).Draw(r, "piece")
			w.Write(Stdout, p, start)
			all = append(all, p...)
		}
		require.Equal(r, string(all), read(r, path, Options{Tail: -1}))

		n := rapid.IntRange(0, 10).Draw(r, "tail")
		lines := strings.SplitAfter(string(all), "\n")
		if lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		want := strings.Join(lines[max(0, len(lines)-n):], "")
		require.Equal(r, want, read(r, path, Options{Tail: n}))
	})
}

func TestTailOfALongLog(t *testing.T) {
	w, path := create(t)
	for i := range 5000 {
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i), start)
	}
	require.Equal(t, "line 4998\nline 4999\n", read(t, path, Options{Tail: 2}))
	require.Equal(t, 3000, strings.Count(read(t, path, Options{Tail: 3000}), "\n"))
	require.Equal(t, 5000, strings.Count(read(t, path, Options{Tail: 9000}), "\n"))
}

func TestTimes(t *testing.T) {
	w, path := create(t)
	for i := range 5 {
		w.Write(Stdout, fmt.Appendf(nil, "%d\n", i), start.Add(time.Duration(i)*time.Second))
	}
	require.Equal(t, "1\n2\n3\n", read(t, path, Options{Tail: -1, Since: start.Add(time.Second), Until: start.Add(3 * time.Second)}))
}

// TestWhatIsNoEntry is passed over, and so is one that a full disk has cut.
func TestWhatIsNoEntry(t *testing.T) {
	w, path := create(t)
	w.Write(Stdout, []byte("one\n"), start)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("{\"log\":\"cut")
	require.NoError(t, err)
	w.torn = true
	w.Write(Stdout, []byte("two\n"), start)
	_, err = f.WriteString("{}\n[]\n\n{\"log\":\"x\",\"stream\":\"other\"}\n")
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\n", read(t, path, Options{Tail: -1}))
	require.Equal(t, "two\n", read(t, path, Options{Tail: 1}))
}

// TestAFullDisk loses output, and says so.
func TestAFullDisk(t *testing.T) {
	w, err := Create("/dev/full")
	require.NoError(t, err)
	w.Write(Stdout, []byte("lost"), start)
	n, why := w.Lost()
	require.EqualValues(t, 4, n)
	require.ErrorContains(t, why, "no space left")
	require.NoError(t, w.Close())
}

// TestFollow sees what comes, also in a file that is new, has been cut, or has been replaced.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	var w *Writer
	write := func(s string) { w.Write(Stdout, []byte(s), start) }
	create := func() {
		var err error
		w, err = Create(path)
		require.NoError(t, err)
	}
	steps := map[string]func(){
		"one\n": func() { write("two\n") },
		"two\n": func() {
			require.NoError(t, os.Truncate(path, 0))
			write("3\n")
		},
		"3\n": func() {
			require.NoError(t, os.Rename(path, path+".old"))
			require.NoError(t, w.Close())
			create()
			write("four\n")
		},
	}
	ended := errors.New("enough")
	begun := false
	var got strings.Builder
	err := Read(t.Context(), path, Options{Tail: -1, Follow: true, Ended: func() bool {
		if !begun { // nothing was there
			begun = true
			create()
			write("one\n")
		}
		return false
	}}, func(e Entry) error {
		got.WriteString(e.Log)
		if next := steps[e.Log]; next != nil {
			next()
			return nil
		}
		return ended
	})
	require.ErrorIs(t, err, ended)
	require.Equal(t, "one\ntwo\n3\nfour\n", got.String())
	require.NoError(t, w.Close())
}

// TestFollowEnds with the machine, after its last word, or with the context.
func TestFollowEnds(t *testing.T) {
	w, path := create(t)
	var got string
	require.NoError(t, Read(t.Context(), path, Options{Tail: -1, Follow: true, Ended: func() bool {
		w.Write(Stdout, []byte("last\n"), start)
		return true
	}}, func(e Entry) error { got += e.Log; return nil }))
	require.Equal(t, "last\n", got)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Read(ctx, path, Options{Follow: true}, func(Entry) error { return nil }), context.Canceled)
}

// FuzzRead: no file makes a reader fail, and the last lines are the last of all.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-11-24T12:00:00Z"}`+"\n"+`{"log":"b","stream":"stderr","time":"2026-11-24T12:00:00Z"}`+"\n"), 1)
	f.Add([]byte(`{"log":"a","raw":"/wo=","stream":"stdout"}`+"\n{\"log"), 2)
	f.Add([]byte("\n\n{}\n"), 0)
	f.Fuzz(func(t *testing.T, content []byte, lines int) {
		path := filepath.Join(t.TempDir(), "log")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		all := read(t, path, Options{Tail: -1})
		require.True(t, strings.HasSuffix(all, read(t, path, Options{Tail: lines & 0xff})))
	})
}
