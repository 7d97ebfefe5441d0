package vmm

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// resting is a device that only knows whether it may work.
type resting struct{ working atomic.Bool }

func (r *resting) Pause(context.Context) error { r.working.Store(false); return nil }
func (r *resting) Resume()                     { r.working.Store(true) }
func (*resting) Close()                        {}

// meddling is a serial port's input whose owner does something when Run ends it.
type meddling struct {
	io.Reader
	atEnd func()
}

func (m *meddling) SetReadDeadline(at time.Time) error {
	if !at.IsZero() {
		m.atEnd()
	}
	return nil
}

// TestNoDeviceWorksAfterRun, whatever the machine's owner asks for while it ends.
func TestNoDeviceWorksAfterRun(t *testing.T) {
	var vm *VM
	device := &resting{}
	cfg := config(t, forever)
	cfg.Serial = &Serial{In: &meddling{eof{}, func() {
		require.True(t, device.working.Load() || vm.Resume() == nil)
	}}}
	vm = newVM(t, cfg)
	vm.virtio = append(vm.virtio, device)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() {
		_, err := vm.Run(ctx)
		require.NoError(t, err)
	})
	require.Eventually(t, device.working.Load, deadline, time.Millisecond)
	require.NoError(t, vm.Pause())
	require.False(t, device.working.Load())
	cancel()
	running.Wait()
	require.False(t, device.working.Load())
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
