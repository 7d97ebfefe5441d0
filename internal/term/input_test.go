package term

import (
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
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
		for cut, reader := range map[string]func(io.Reader) io.Reader{
			"at once":    func(r io.Reader) io.Reader { return r },
			"one by one": iotest.OneByteReader,
			"with error": iotest.DataErrReader,
		} {
			t.Run(tt.name+" "+cut, func(t *testing.T) {
				done := ""
				keys := NewKeys(reader(strings.NewReader(tt.typed)), map[byte]func(){
					'x': func() { done += "x" },
					'h': func() { done += "h" },
				})
				sent, err := io.ReadAll(keys)
				require.NoError(t, err)
				require.Equal(t, tt.sent, string(sent))
				require.Equal(t, tt.done, done)
			})
		}
	}
}

func TestKeysPassDeadlinesOn(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	in, err := NewInput(r)
	require.NoError(t, err)
	defer in.Close()
	keys := NewKeys(in, nil)
	require.NoError(t, keys.SetReadDeadline(time.Now()))
	_, err = keys.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, NewKeys(strings.NewReader(""), nil).SetReadDeadline(time.Now()))
}
