package virtio_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// interrupt is an Interrupt that calls a function.
type interrupt func()

func (i interrupt) Signal() { i() }

// TestNoInterruptComesAfterTheEnd: where an interrupt leads, an eventfd say, goes
// away after Close, and something else may have its number then. A device that
// gives up sends one when nothing serves it any more.
func TestNoInterruptComesAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*virtio.State) error{
		"Close": func(s *virtio.State) error { s.Close(); return nil },
		"Pause": func(s *virtio.State) error { return s.Pause(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			signalled, returned, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
			late := false
			s, err := virtio.NewState(virtio.Config{
				Device: &echo{fail: errors.New("the host is out of luck")},
				Memory: virtiotest.NewMemory(0, 4096),
				ConfigInterrupt: interrupt(func() {
					defer close(returned)
					close(signalled)
					select {
					case <-over:
						late = true
					case <-time.After(50 * time.Millisecond): // only a mistake is found faster
					}
				}),
			})
			require.NoError(t, err)
			defer s.Close()
			s.SetStatus(virtio.StatusAcknowledge)
			s.SetStatus(virtio.StatusDriver)
			s.SetDriverFeatureSelect(1)
			s.SetDriverFeatures(virtio.FeatVersion1 >> 32)
			s.SetStatus(virtio.StatusFeaturesOK)
			s.SetStatus(virtio.StatusDriverOK)
			<-signalled
			err = end(s)
			close(over)
			<-returned
			require.NoError(t, err)
			require.False(t, late, "it was over before its interrupt was")
		})
	}
}
