package term

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInputReads(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	in, err := NewInput(r)
	require.NoError(t, err)
	defer in.Close()

	_, err = w.WriteString("hello")
	require.NoError(t, err)
	buf := make([]byte, 16)
	n, err := in.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "hello", string(buf[:n]))

	require.NoError(t, w.Close())
	_, err = in.Read(buf)
	require.ErrorIs(t, err, io.EOF)
}

func TestInputReadIsInterrupted(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	in, err := NewInput(r)
	require.NoError(t, err)
	defer in.Close()

	blocked := make(chan error)
	read := func() {
		_, err := in.Read(make([]byte, 1))
		blocked <- err
	}

	go read()
	require.NoError(t, in.SetReadDeadline(time.Now()))
	require.ErrorIs(t, <-blocked, os.ErrDeadlineExceeded)
	_, err = in.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "a deadline stays until it is taken away")

	require.NoError(t, in.SetReadDeadline(time.Now().Add(time.Millisecond)))
	go read()
	require.ErrorIs(t, <-blocked, os.ErrDeadlineExceeded, "a deadline in the future comes")

	require.NoError(t, in.SetReadDeadline(time.Time{}))
	go read()
	_, err = w.Write([]byte{1})
	require.NoError(t, err)
	require.NoError(t, <-blocked)
}

func TestKeys(t *testing.T) {
	tests := []struct {
		name, typed, sent, done string
	}{
		{"plain bytes", "hello\r\n\x00\xff", "hello\r\n\x00\xff", ""},
		{"leave", "ab\x01xcd", "abcd", "x"},
		{"upper case", "\x01X", "", "x"},
		{"the escape key itself", "\x01\x01x", "\x01x", ""},
		{"three times and a letter", "\x01\x01\x01h", "\x01", "h"},
		{"no such key", "a\x01?b", "ab", ""},
		{"nothing but commands", "\x01h\x01h", "", "hh"},
		{"an escape at the end", "a\x01", "a", ""},
	}
	for _, tt := range tests {
		// However the bytes are cut into reads, it comes to the same.
		for _, cut := range []int{1, 2, 3, len(tt.typed)} {
			t.Run(fmt.Sprintf("%s by %d", tt.name, cut), func(t *testing.T) {
				sent, done := "", ""
				keys := &Keys{actions: map[byte]func(){
					'x': func() { done += "x" },
					'h': func() { done += "h" },
				}}
				for p := range slices.Chunk([]byte(tt.typed), cut) {
					sent += string(p[:keys.filter(p)])
				}
				require.Equal(t, tt.sent, sent)
				require.Equal(t, tt.done, done)
			})
		}
	}
}

// newKeys returns Keys and the place to type.
func newKeys(t *testing.T, actions map[byte]func()) (keys *Keys, typing *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	in, err := NewInput(r)
	require.NoError(t, err)
	keys, err = NewKeys(in, actions)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, keys.Close())
		require.NoError(t, in.Close())
		_ = r.Close()
		_ = w.Close()
	})
	return keys, w
}

func TestKeysWorkWhileNobodyTakesInput(t *testing.T) {
	pressed := make(chan struct{}, 1)
	keys, typing := newKeys(t, map[byte]func(){'x': func() { pressed <- struct{}{} }})
	go func() { _, _ = typing.WriteString("abc") }()
	got := make([]byte, 1)
	_, err := keys.Read(got)
	require.NoError(t, err)
	require.Equal(t, "a", string(got))

	// More than fits is typed, and then the key.
	_, err = typing.Write(bytes.Repeat([]byte("z"), 2*keysAhead))
	require.NoError(t, err)
	_, err = typing.WriteString("\x01x")
	require.NoError(t, err)
	<-pressed

	require.NoError(t, typing.Close())
	rest, err := io.ReadAll(keys)
	require.NoError(t, err)
	require.Equal(t, "bczzz", string(rest[:5]), "what came first is kept")
	require.LessOrEqual(t, len(rest), keysAhead)
}

func TestKeysReadIsInterrupted(t *testing.T) {
	keys, typing := newKeys(t, nil)
	require.NoError(t, keys.SetReadDeadline(time.Now()))
	_, err := keys.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, keys.SetReadDeadline(time.Time{}))
	_, err = typing.WriteString("a")
	require.NoError(t, err)
	n, err := keys.Read(make([]byte, 1))
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestKeysAreClosed(t *testing.T) {
	_, _ = newKeys(t, nil) // never read
	keys, typing := newKeys(t, nil)
	_, err := typing.WriteString("a")
	require.NoError(t, err)
	_, err = keys.Read(make([]byte, 1)) // and waiting for more
	require.NoError(t, err)
}
