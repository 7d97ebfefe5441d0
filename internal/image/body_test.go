package image

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// words gives a byte, and then nothing until its context ends.
type words struct {
	ctx  context.Context
	said bool
}

func (w *words) Read(p []byte) (int, error) {
	if w.said {
		<-w.ctx.Done()
		return 0, w.ctx.Err()
	}
	w.said = true
	return copy(p, "x"), nil
}

// TestBodyPatience: a registry can be slow for too long, and husk cannot.
func TestBodyPatience(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	const patience = 20 * time.Millisecond
	timer := time.AfterFunc(patience, func() { cancel(errStalled) })
	timer.Stop()
	b := &body{ReadCloser: io.NopCloser(&words{ctx: ctx}), ctx: ctx, cancel: cancel, timer: timer, patience: patience}
	_, err := b.Read(make([]byte, 1))
	require.NoError(t, err)
	time.Sleep(5 * patience) // husk writes
	require.NoError(t, ctx.Err())
	_, err = b.Read(make([]byte, 1))
	require.ErrorIs(t, err, errStalled)
	require.NoError(t, b.Close())
}
