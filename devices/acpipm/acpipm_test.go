package acpipm

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
)

var _ devices.Device = (*Device)(nil)

// board is what a block is soldered to: it counts what reaches it.
type board struct {
	*Device

	mu              sync.Mutex
	line            bool
	powerOff, reset int
}

func newBoard() *board {
	b := &board{}
	b.Device = New(Config{Line: b, PowerOff: func() { b.powerOff++ }, Reset: func() { b.reset++ }})
	return b
}

// Set implements devices.Line.
func (b *board) Set(high bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.line = high
}

func (b *board) level() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.line
}

func (b *board) read(off uint64) byte {
	p := []byte{0xA5}
	b.Load(off, p)
	return p[0]
}

func TestSleepAndReset(t *testing.T) {
	for _, tt := range []struct {
		name            string
		off             uint64
		store           []byte
		powerOff, reset int
	}{
		{"S5", SleepControl, []byte{SleepTypeS5<<2 | 1<<5}, 1, 0},
		{"S5 and reserved bits", SleepControl, []byte{SleepTypeS5<<2 | 1<<5 | 0xC3}, 1, 0},
		{"S5 not enabled", SleepControl, []byte{SleepTypeS5 << 2}, 0, 0},
		{"S3", SleepControl, []byte{3<<2 | 1<<5}, 0, 0},
		{"wake status", SleepStatus, []byte{0x80}, 0, 0}, // Linux clears it before it sleeps
		{"reset", Reset, []byte{ResetValue}, 0, 1},
		{"reset, other value", Reset, []byte{6}, 0, 0},
		{"events", Events, []byte{0xFF}, 0, 0},
		{"no register", 4, []byte{0xFF, 0xFF, 0xFF, 0xFF}, 0, 0},
		{"a word on both", SleepControl, []byte{SleepTypeS5<<2 | 1<<5, 0, ResetValue, 0}, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard()
			b.Store(tt.off, tt.store)
			require.Equal(t, tt.powerOff, b.powerOff)
			require.Equal(t, tt.reset, b.reset)
			require.False(t, b.level())
		})
	}
}

func TestLoads(t *testing.T) {
	b := newBoard()
	p := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	b.Load(0, p)
	require.Equal(t, []byte{0, 0, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF}, p)
}

// The line is asserted from the press until the guest has read the event,
// however late that is, and not longer.
func TestPowerButton(t *testing.T) {
	b := newBoard()
	require.Zero(t, b.read(Events))
	require.False(t, b.level())

	b.PressPowerButton()
	require.True(t, b.level())
	b.PressPowerButton()
	require.True(t, b.level())

	require.EqualValues(t, PowerButton, b.read(Events))
	require.False(t, b.level())
	require.Zero(t, b.read(Events), "read once")

	b.PressPowerButton()
	require.True(t, b.level())
	require.EqualValues(t, PowerButton, b.read(Events))
}

// Other registers leave the event alone.
func TestOnlyEventsAcknowledges(t *testing.T) {
	b := newBoard()
	b.PressPowerButton()
	for off := range uint64(Size) {
		if off != Events {
			b.read(off)
			b.Store(off, []byte{0})
		}
	}
	b.Store(Events, []byte{0xFF})
	require.True(t, b.level())
	require.EqualValues(t, PowerButton, b.read(Events))
}

// With several vCPUs reading while the button is pressed, the line ends where
// the events say, and every event was read by one of them at most.
func TestConcurrentPressAndRead(t *testing.T) {
	const presses = 1000
	b := newBoard()
	var pressing, reading sync.WaitGroup
	done := make(chan struct{})
	var mu sync.Mutex
	seen := 0
	for range 3 {
		reading.Go(func() {
			for {
				if b.read(Events) != 0 {
					mu.Lock()
					seen++
					mu.Unlock()
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	pressing.Go(func() {
		for range presses {
			b.PressPowerButton()
		}
	})
	pressing.Wait()
	close(done)
	reading.Wait()
	if b.read(Events) != 0 {
		seen++
	}
	require.False(t, b.level())
	require.Positive(t, seen)
	require.LessOrEqual(t, seen, presses)
}

// A guest accesses at random, and the button is pressed at random. The line
// always says whether an event is pending.
func FuzzAccess(f *testing.F) {
	f.Add([]byte{0, 0x00, 1, 0x34})             // power off
	f.Add([]byte{0, 0x02, 1, 0x01})             // reset
	f.Add([]byte{2, 0, 0, 0, 1, 0x03, 1, 0})    // press, read
	f.Add([]byte{2, 0, 0, 0, 1, 0x00, 8, 0})    // press, read all at once
	f.Add([]byte{2, 0, 0, 0, 0, 0x03, 4, 0xFF}) // press, store
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newBoard()
		pending := false
		for ; len(script) >= 4; script = script[4:] {
			op, off, n, v := script[0], uint64(script[1]), script[2]%9, script[3]
			p := make([]byte, n)
			for i := range p {
				p[i] = v
			}
			switch op % 3 {
			case 0:
				b.Store(off, p)
			case 1:
				b.Load(off, p)
				if off <= Events && Events < off+uint64(n) {
					require.Equal(t, pending, p[Events-off] == PowerButton)
					pending = false
				}
			case 2:
				b.PressPowerButton()
				pending = true
			}
			require.Equal(t, pending, b.level())
		}
	})
}
