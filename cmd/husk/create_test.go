package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/vmm"
)

func newFIFO(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	return path
}

func TestAFIFOThatNobodyReadsIsRefused(t *testing.T) {
	for flag, value := range map[string]string{"--stats": newFIFO(t), "--serial": serialFile + newFIFO(t)} {
		h := newFakeHost(t)
		require.Equal(t, exitFailed, h.husk("boot", "-k", file(t, "bzImage", "kernel"), flag, value))
		require.Regexp(t, "^husk: "+flag+": open .*fifo: no such device or address: nobody reads this FIFO; start its reader first\n$", h.err.String())
	}
}

func TestAFIFOIsWrittenTo(t *testing.T) {
	console, stats := newFIFO(t), newFIFO(t)
	// More than a pipe holds: the writes must wait for the reader.
	said := bytes.Repeat([]byte("x"), 1<<20)
	h := newFakeHost(t)
	h.run = func(_ context.Context, m *fakeMachine) (*vmm.Result, error) {
		_, err := m.cfg.Serial.Out.Write(said)
		return &vmm.Result{Outcome: vmm.PowerOff}, err
	}
	read := func(path string) <-chan []byte {
		r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // there before husk is
		require.NoError(t, err)
		t.Cleanup(func() { _ = r.Close() })
		// A writer of its own keeps the reader from an end of file before husk's.
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		text := make(chan []byte, 1)
		go func() {
			first := make([]byte, 1)
			_, _ = io.ReadFull(r, first)
			_ = w.Close()
			rest, _ := io.ReadAll(r)
			text <- append(first, rest...)
		}()
		return text
	}
	heard, figures := read(console), read(stats)
	require.Equal(t, exitOK, h.husk("boot", "-k", file(t, "bzImage", "kernel"), "--serial", serialFile+console, "--stats", stats), h.err.String())
	require.True(t, bytes.Equal(said, <-heard))
	require.Contains(t, string(<-figures), `"exit_code": 0`)
}
