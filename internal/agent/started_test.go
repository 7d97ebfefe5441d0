package agent

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/stretchr/testify/require"
)

// TestStarted: who asks hears that a command runs while it does, or why it does not.
func TestStarted(t *testing.T) {
	c := pair(t)
	var calls []error
	r, w := io.Pipe()
	code, err := c.Run(t.Context(), Command{Argv: []string{"cat"}, Env: env(), Stdin: r, Started: func(err error) {
		calls = append(calls, err)
		_ = w.Close() // else it would not end
	}})
	require.NoError(t, err)
	require.Zero(t, code)
	require.Equal(t, []error{nil}, calls)

	calls = nil
	var stderr bytes.Buffer
	code, err = c.Run(t.Context(), Command{Argv: []string{"/nowhere/at-all"}, Env: env(), Stderr: &stderr, Started: func(err error) { calls = append(calls, err) }})
	require.NoError(t, err)
	require.Equal(t, CodeNotFound, code)
	require.Len(t, calls, 1)
	require.ErrorContains(t, calls[0], "no such file")
	require.Empty(t, stderr.String())
}

// TestRest: a paused guest is not taken for one that hangs, and not asked, until it is resumed.
func TestRest(t *testing.T) {
	host, guest := net.Pipe()
	heard := make(chan struct{}, 1000)
	go func() {
		b := make([]byte, 12) // a question
		for {
			if _, err := io.ReadFull(guest, b); err != nil {
				return
			}
			heard <- struct{}{}
		}
	}()
	session, err := yamux.Client(host, config())
	require.NoError(t, err)
	const every, patience = time.Millisecond, 20
	c := &Client{session: session, patience: patience * every}
	c.Rest(true)
	c.watch.Go(func() { c.heartbeat(every, patience) })
	time.Sleep(2 * patience * every)
	require.False(t, c.Lost())
	require.Empty(t, heard)
	c.Rest(false)
	_, err = c.Run(t.Context(), Command{Argv: []string{"true"}})
	require.ErrorIs(t, err, ErrSilent)
	require.NoError(t, c.Close())
}
