package agent

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

type readOnly struct {
	io.Reader
	io.WriteCloser
}

func TestIncoming(t *testing.T) {
	data := "\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x0e" + strings.Repeat("\x00\x02\x00\x01", 3) + "xy"
	update := "\x00\x01\x00\x06\x00\x00\x00\x01\x00\x00\x00\xff"
	answer := "\x00\x02\x00\x02\x00\x00\x00\x00\x00\x00\x00\x07"
	question := "\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07"
	opens := "\x00\x01\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00"
	for _, tt := range []struct {
		text string
		ok   bool
	}{
		{data + update + answer + data + data, true},
		{data + question, false},
		{opens, false},
		{update + data[:20], true},
	} {
		for _, r := range []io.Reader{strings.NewReader(tt.text), iotest.OneByteReader(strings.NewReader(tt.text))} {
			got, err := io.ReadAll(&incoming{ReadWriteCloser: readOnly{Reader: r}})
			if tt.ok {
				require.NoError(t, err)
				require.Equal(t, tt.text, string(got))
			} else {
				require.ErrorIs(t, err, ErrProtocol)
			}
		}
	}
}

// TestAGuestThatAsks is not answered: its connection is closed.
func TestAGuestThatAsks(t *testing.T) {
	host, guest := net.Pipe()
	connected := make(chan *Client, 1)
	go func() {
		c, _ := Connect(t.Context(), host)
		connected <- c
	}()
	require.NoError(t, writeFrame(guest, hello{Version: version}))
	c := <-connected
	require.NotNil(t, c)
	go func() { _, _ = io.Copy(io.Discard, guest) }()
	question := "\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07"
	_, err := guest.Write(bytes.Repeat([]byte(question), 100))
	for err == nil {
		_, err = guest.Write([]byte(question))
	}
	_, err = c.Run(t.Context(), Command{Argv: []string{"true"}})
	require.Error(t, err)
	require.True(t, c.Lost())
	require.NoError(t, c.Close())
}

func FuzzIncoming(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x02xy"), 3)
	f.Add([]byte("\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07"), 1)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 1 || size > 1<<16 {
			return
		}
		whole, wholeErr := io.ReadAll(&incoming{ReadWriteCloser: readOnly{Reader: bytes.NewReader(b)}})
		small := &incoming{ReadWriteCloser: readOnly{Reader: bytes.NewReader(b)}}
		var parts []byte
		var err error
		for p := make([]byte, size); err == nil; {
			var n int
			n, err = small.Read(p)
			parts = append(parts, p[:n]...)
		}
		if wholeErr == nil {
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, string(whole), string(parts))
		} else {
			require.ErrorIs(t, err, ErrProtocol)
		}
	})
}
