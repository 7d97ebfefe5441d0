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
