package rtc

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line counts interrupts. synctest.Wait orders it after the timer's goroutine.
type line struct {
	high  bool
	rises int
}

func (l *line) Set(high bool) {
	if high {
		l.rises++
	}
	l.high = high
}

// TestInterrupts reads register C for each interrupt, as a handler does, and
// counts them.
func TestInterrupts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(*RTC)
		lasts time.Duration
		want  int
		flag  byte
	}{
		{"none", func(*RTC) {}, time.Hour, 0, 0},
		{"update", func(r *RTC) { put(r, regB, b24Hours|bUpdate) }, 10*time.Second + 1, 10, cUpdate},
		{"periodic, 2 Hz", func(r *RTC) { put(r, regA, aDivider32k|15); put(r, regB, b24Hours|bPeriodic) }, 10*time.Second + 1, 20, cPeriodic},
		{"periodic, 128 Hz", func(r *RTC) { put(r, regA, aDivider32k|2); put(r, regB, b24Hours|bPeriodic) }, time.Second + 1, 128, cPeriodic},
		{"periodic, 8192 Hz", func(r *RTC) { put(r, regA, aDivider32k|3); put(r, regB, b24Hours|bPeriodic) }, time.Second + 1, 8192, cPeriodic},
		{"periodic, rate 0", func(r *RTC) { put(r, regA, aDivider32k); put(r, regB, b24Hours|bPeriodic) }, time.Second, 0, 0},
		{"periodic, divider held", func(r *RTC) { put(r, regA, 0x76); put(r, regB, b24Hours|bPeriodic) }, time.Second, 0, 0},
		{"alarm once a day", func(r *RTC) {
			put(r, regHoursAlarm, 0x03)
			put(r, regMinutesAlarm, 0x04)
			put(r, regSecondsAlarm, 0x05)
			put(r, regB, b24Hours|bAlarm)
		}, 72 * time.Hour, 3, cAlarm},
		{"alarm each minute", func(r *RTC) {
			put(r, regHoursAlarm, 0xff)
			put(r, regMinutesAlarm, 0xc0)
			put(r, regSecondsAlarm, 0x30)
			put(r, regB, b24Hours|bAlarm)
		}, time.Hour, 60, cAlarm},
		{"alarm never", func(r *RTC) { put(r, regSecondsAlarm, 0x99); put(r, regB, b24Hours|bAlarm) }, 48 * time.Hour, 0, 0},
		{"no updates while the time is set", func(r *RTC) { put(r, regB, b24Hours|bSet); put(r, regB, b24Hours|bSet|bUpdate|bAlarm) }, 48 * time.Hour, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				irq := make(handler, 1)
				r := New(Config{Line: irq})
				tt.set(r)
				end := time.After(tt.lasts)
				n := 0
				for {
					select {
					case <-irq:
						n++
						c := get(r, regC)
						require.NotZero(t, c&cInterrupt)
						require.NotZero(t, c&tt.flag)
						continue
					case <-end:
					}
					break
				}
				require.Equal(t, tt.want, n)
				r.Close()
			})
		})
	}
}

// handler is an interrupt that a goroutine waits for.
type handler chan struct{}

func (h handler) Set(high bool) {
	if high {
		h <- struct{}{}
	}
}

func TestInterruptNeedsAcknowledging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l line
		r := New(Config{Line: &l})
		defer r.Close()
		put(r, regA, aDivider32k|3)
		put(r, regB, b24Hours|bPeriodic)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, l.rises, "8192 a second, if nothing held them back")
		require.True(t, l.high)
		require.NotZero(t, get(r, regC)&cPeriodic)
		require.False(t, l.high)
		require.Zero(t, get(r, regC))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 2, l.rises)
		put(r, regB, b24Hours)
		require.False(t, l.high, "switched off")
	})
}

func TestFlagsComeUpWithoutInterrupts(t *testing.T) {
	r, c := newAt(monday)
	put(r, regSecondsAlarm, 0x01)
	put(r, regMinutesAlarm, 0xff)
	put(r, regHoursAlarm, 0xff)
	require.Zero(t, get(r, regC))
	c.t = c.t.Add(time.Second)
	require.EqualValues(t, cUpdate|cPeriodic, get(r, regC))
	require.Zero(t, get(r, regC), "reading clears them")
	c.t = c.t.Add(time.Second)
	require.EqualValues(t, cUpdate|cPeriodic|cAlarm, get(r, regC))
}

func TestCloseStopsInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l line
		r := New(Config{Line: &l})
		put(r, regB, b24Hours|bUpdate)
		r.Close()
		time.Sleep(time.Minute)
		put(r, regB, b24Hours|bUpdate|bPeriodic)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, l.rises)
	})
}

// A clock of the host that stands, or runs backwards, must not make timers spin.
func TestStandingHostClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := 0
		at := monday.Add(time.Second - 1)
		r := New(Config{Now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			asked++
			at = at.Add(-time.Nanosecond)
			return at
		}})
		put(r, regA, aDivider32k|3)
		put(r, regB, b24Hours|bUpdate|bPeriodic)
		time.Sleep(time.Second)
		r.Close()
		require.Less(t, asked, 20000)
	})
}

func TestConcurrentUse(*testing.T) {
	r := New(Config{Line: &line{}})
	defer r.Close()
	var vcpus sync.WaitGroup
	for seed := range uint64(4) {
		vcpus.Go(func() {
			rnd := rand.New(rand.NewPCG(3, seed))
			for range 2000 {
				if i := byte(rnd.UintN(16)); rnd.IntN(2) == 0 {
					get(r, i)
				} else {
					put(r, i, byte(rnd.Uint32()))
				}
			}
		})
	}
	vcpus.Wait()
}

// pass lets time pass for r, whose timer reads the clock too.
func pass(r *RTC, c *clock, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.t = c.t.Add(d)
}

// FuzzPorts does what its input says, four bytes a step: an access of any width,
// or time that passes.
func FuzzPorts(f *testing.F) {
	f.Add([]byte{1, 0, regB, bSet | bUpdate, 1, 0, regYear, 0xff, 1, 0, Century, 0xff, 1, 0, regB, bAlarm, 2, 255, 255, 7, 0, 1, 0, 0})
	f.Add([]byte{1, 0, regA, 0x23, 1, 0, regB, 0x72, 2, 0, 10, 0, 1, 0, regC, 0, 0, 1, 0, 0, 1, 0, regA, 0x70, 2, 1, 1, 1})
	f.Add([]byte{1, 0, regSecondsAlarm, 0x99, 1, 0, regHoursAlarm, 0xc0, 1, 0, regB, 0x22, 2, 0, 0, 200, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var l line
		c := &clock{monday}
		r := New(Config{Now: c.now, Line: &l})
		defer r.Close()
		for ; len(steps) >= 4; steps = steps[4:] {
			switch steps[0] & 3 {
			case 0:
				r.Load(uint64(steps[1]&3), make([]byte, 1<<(steps[3]&3)))
			case 1:
				r.Store(uint64(steps[1]&3), steps[2:4])
			case 2:
				passed := time.Duration(steps[1]) | time.Duration(steps[2])<<16 | time.Duration(steps[3])<<34
				pass(r, c, passed)
			case 3:
				pass(r, c, -time.Duration(steps[1])<<28)
			}
			r.mu.Lock()
			require.Equal(t, r.regs.pending(), l.high)
			require.Zero(t, r.regs.ram[regC]&^cFlags)
			require.Zero(t, r.regs.ram[regA]&aUpdate)
			_, n := r.regs.nextInterrupt(c.t)
			require.False(t, n && r.regs.ram[regB]&cFlags == 0)
			r.mu.Unlock()
		}
	})
}
