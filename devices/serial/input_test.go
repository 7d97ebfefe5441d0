package serial

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// wakeLine is an interrupt that a driver's goroutine can wait for.
type wakeLine chan struct{}

func (w wakeLine) Set(high bool) {
	if high {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// A driver that takes a few bytes an interrupt gets all, in order, and never
// sees an overrun.
func TestInputLosesNothing(t *testing.T) {
	for bits := range byte(4) {
		irq := make(wakeLine, 1)
		u := New(Config{Line: irq})
		open(u, bits, ierRDA|ierRLS)
		want := strings.Repeat("The quick brown fox. ", 200)
		var sender sync.WaitGroup
		sender.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(bits)))
			for s := want; s != ""; {
				n := min(len(s), 1+rnd.IntN(40))
				got, err := u.Input(context.Background(), []byte(s[:n]))
				if err != nil || got != n {
					t.Errorf("Input took %d of %d bytes: %v", got, n, err)
				}
				s = s[n:]
			}
		})
		var got []byte
		for len(got) < len(want) {
			<-irq
			for get(u, regIIR)&iirNone == 0 {
				lsr := get(u, regLSR)
				require.Zero(t, lsr&lsrErrors)
				for ; lsr&lsrDR != 0; lsr = get(u, regLSR) {
					got = append(got, get(u, regData))
				}
			}
		}
		sender.Wait()
		require.Equal(t, want, string(got))
	}
}

func TestInputEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := New(Config{})
		open(u, 0, 0)
		ctx, cancel := context.WithCancel(t.Context())
		var n int
		var err error
		go func() { n, err = u.Input(ctx, make([]byte, 20)) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		require.Equal(t, fifoSize, n)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestInputWaitsForAListener(t *testing.T) {
	for _, tt := range []struct {
		name   string
		listen func(*UART)
	}{
		{"RTS", func(u *UART) { put(u, regMCR, mcrRTS) }},
		{"polling", func(u *UART) {
			for range pollsToListen {
				get(u, regLSR)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := New(Config{})
				go u.Input(context.Background(), []byte("hi")) //nolint:errcheck // ctx does not end
				synctest.Wait()
				// What Linux does while it probes and opens the port.
				put(u, regIER, ierMask)
				put(u, regMCR, mcrLoop|mcrRTS)
				put(u, regMCR, mcrDTR|mcrOUT2)
				for range 2 * pollsToListen { // and sends
					get(u, regLSR)
					put(u, regData, 'x')
				}
				synctest.Wait()
				require.Zero(t, get(u, regLSR)&lsrDR)

				put(u, regFCR, fcrEnable)
				tt.listen(u)
				synctest.Wait()
				require.Equal(t, "hi", read(u))
			})
		})
	}
}

// Registers, input and output may be used from everywhere at once.
func TestConcurrentUse(t *testing.T) {
	u := New(Config{Line: &line{}})
	stop := serve(t, u)
	ctx, cancel := context.WithCancel(t.Context())
	var vcpus, host sync.WaitGroup
	for seed := range uint64(3) {
		vcpus.Go(func() {
			rnd := rand.New(rand.NewPCG(1, seed))
			for range 3000 {
				if off := rnd.Uint64N(Size); rnd.IntN(2) == 0 {
					get(u, off)
				} else {
					put(u, off, byte(rnd.Uint32()))
				}
			}
		})
		host.Go(func() {
			for ctx.Err() == nil {
				u.Input(ctx, []byte("some input that is longer than a FIFO")) //nolint:errcheck // ends with ctx
				u.Break(ctx)                                                  //nolint:errcheck // ends with ctx
			}
		})
	}
	vcpus.Wait()
	cancel()
	host.Wait()
	require.NoError(t, stop())
}
