package term

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseDetachKeys(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-@": "\x00", "ctrl-[,q": "\x1bq", "CTRL-A": "\x01", "ctrl-_": "\x1f",
	} {
		keys, err := ParseDetachKeys(text)
		require.NoError(t, err)
		require.Equal(t, want, string(keys), text)
	}
	for _, text := range []string{"ctrl-", "ctrl-1", "ab", "ctrl-a,", "ctrl-aa"} {
		_, err := ParseDetachKeys(text)
		require.ErrorContains(t, err, "detach keys", text)
	}
}

func TestDetach(t *testing.T) {
	tests := []struct {
		keys, typed, sent string
		detached          bool
	}{
		{"\x10\x11", "abc", "abc", false},
		{"\x10\x11", "a\x10\x11b", "a", true},
		{"\x10\x11", "\x10\x10\x11", "\x10", true},
		{"\x10\x11", "\x10a\x11", "\x10a\x11", false},
		{"\x10\x11", "a\x10", "a\x10", false},
		{"", "\x10\x11", "\x10\x11", false},
		{"aab", "aaab", "a", true},
		{"abac", "ababac", "ab", true},
		{"abac", "ababa", "ababa", false},
	}
	for _, tt := range tests {
		for name, cut := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "by bytes": iotest.OneByteReader} {
			t.Run(fmt.Sprintf("%q %s", tt.typed, name), func(t *testing.T) {
				sent, err := io.ReadAll(NewDetach(cut(strings.NewReader(tt.typed)), []byte(tt.keys)))
				require.Equal(t, tt.sent, string(sent))
				require.Equal(t, tt.detached, errors.Is(err, ErrDetached))
			})
		}
	}
}

// TestDetachWhere: at the first place where the keys are, and nothing before is lost.
func TestDetachWhere(t *testing.T) {
	letters := rapid.StringOf(rapid.SampledFrom([]rune("ab")))
	rapid.Check(t, func(r *rapid.T) {
		keys := letters.Filter(func(s string) bool { return s != "" }).Draw(r, "keys")
		typed := letters.Draw(r, "typed")
		sent, err := io.ReadAll(NewDetach(iotest.HalfReader(strings.NewReader(typed)), []byte(keys)))
		want, _, found := strings.Cut(typed, keys)
		require.Equal(r, want, string(sent))
		require.Equal(r, found, errors.Is(err, ErrDetached))
	})
}

// TestDetachIsInterrupted: what is typed afterwards is another's.
func TestDetachIsInterrupted(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	d := NewDetach(r, []byte("xy"))
	past := func() { require.NoError(t, d.SetReadDeadline(time.Unix(1, 0))) }
	past()
	_, err = d.Read(make([]byte, 8))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, d.SetReadDeadline(time.Time{}))
	_, err = w.WriteString("ax")
	require.NoError(t, err)
	b := make([]byte, 8)
	n, err := d.Read(b)
	require.NoError(t, err)
	require.Equal(t, "a", string(b[:n]))
	past()
	_, err = d.Read(b)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorIs(t, NewDetach(strings.NewReader(""), nil).SetReadDeadline(time.Time{}), errors.ErrUnsupported)
}
