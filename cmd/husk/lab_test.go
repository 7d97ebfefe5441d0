package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASignalIsForwardedAndInsistedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 8)
		ctx, forwarded, stop := insist(context.Background(), signals)
		defer stop()

		signals <- syscall.SIGINT
		require.Equal(t, syscall.SIGINT, <-forwarded)
		time.Sleep(10 * patience)
		require.NoError(t, ctx.Err(), "an interrupt is the command's own affair")

		signals <- syscall.SIGTERM
		require.Equal(t, syscall.SIGTERM, <-forwarded)
		time.Sleep(patience - time.Nanosecond)
		require.NoError(t, ctx.Err())
		time.Sleep(2 * time.Nanosecond)
		var ending stubborn
		require.True(t, errors.As(context.Cause(ctx), &ending))
		require.Equal(t, syscall.SIGTERM, ending.signal)
	})
}

func TestTheLabsOwnFoldersAreNotTheHosts(t *testing.T) {
	for dir, want := range map[string]bool{
		"/": false, "/dev": false, "/dev/pts": false, "/proc/self/fd": false, "/sys": false,
		"/tmp": true, "/dev/shm": true, "/device": true, "/home/me": true,
	} {
		require.Equal(t, want, shareable(dir), dir)
	}
	for _, own := range []string{" / ", "/dev ", "/dev/shm", "/proc", "/sys"} {
		require.Contains(t, labVerb().long, own, "the help says so")
	}
}

func TestLabRefusesWhatMakesNoSense(t *testing.T) {
	for _, args := range [][]string{{"--timeout=-1s", "true"}, {"-c", "0"}, {"-m", "lots"}} {
		h := newFakeHost(t)
		require.Equal(t, exitFailed, h.husk(append([]string{"lab"}, args...)...))
		require.Contains(t, h.err.String(), "see husk lab --help")
	}
}
