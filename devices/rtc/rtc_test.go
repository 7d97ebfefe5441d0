package rtc

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/huskvm/husk/devices"
)

var _ devices.Device = (*RTC)(nil)

// A clock is the host's, set by hand.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

// 2026-11-23 is a Monday.
var monday = time.Date(2026, 11, 23, 14, 5, 59, 0, time.UTC)

func newAt(t time.Time) (*RTC, *clock) {
	c := &clock{t}
	return New(Config{Now: c.now}), c
}

// get and put are Linux's CMOS_READ and CMOS_WRITE: two accesses.
func get(r *RTC, i byte) byte {
	r.Store(0, []byte{i})
	var p [1]byte
	r.Load(1, p[:])
	return p[0]
}

func put(r *RTC, i, v byte) {
	r.Store(0, []byte{i})
	r.Store(1, []byte{v})
}

// show reads the time as it stands in the registers: weekday, century, year,
// month, day, hour, minute, second.
func show(r *RTC) []byte {
	var p []byte
	for _, i := range []byte{regWeekday, Century, regYear, regMonth, regDay, regHours, regMinutes, regSeconds} {
		p = append(p, get(r, i))
	}
	return p
}

func TestFormats(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    byte
		hour int
		want []byte
	}{
		{"BCD, 24 hours", b24Hours, 14, []byte{2, 0x20, 0x26, 0x11, 0x23, 0x14, 0x05, 0x59}},
		{"binary, 24 hours", b24Hours | bBinary, 14, []byte{2, 20, 26, 11, 23, 14, 5, 59}},
		{"BCD, 12 hours", 0, 14, []byte{2, 0x20, 0x26, 0x11, 0x23, 0x82, 0x05, 0x59}},
		{"binary, 12 hours", bBinary, 14, []byte{2, 20, 26, 11, 23, 0x82, 5, 59}},
		{"midnight", 0, 0, []byte{2, 0x20, 0x26, 0x11, 0x23, 0x12, 0x05, 0x59}},
		{"noon", 0, 12, []byte{2, 0x20, 0x26, 0x11, 0x23, 0x92, 0x05, 0x59}},
		{"before noon", bBinary, 11, []byte{2, 20, 26, 11, 23, 11, 5, 59}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := newAt(monday.Add(time.Duration(tt.hour-14) * time.Hour))
			put(r, regB, tt.b)
			require.Equal(t, tt.want, show(r))
		})
	}
}

func TestShowsUTC(t *testing.T) {
	r, _ := newAt(monday.In(time.FixedZone("east", 3600*5)))
	require.EqualValues(t, 0x14, get(r, regHours))
}

func TestUpdateFlag(t *testing.T) {
	for _, tt := range []struct {
		nsec time.Duration
		up   bool
	}{
		{0, false},
		{500 * time.Millisecond, false},
		{time.Second - updateNotice - 1, false},
		{time.Second - updateNotice, true},
		{time.Second - 1, true},
	} {
		r, c := newAt(monday.Add(tt.nsec))
		require.Equal(t, tt.up, get(r, regA)&aUpdate != 0, "%v into the second", tt.nsec)
		put(r, regA, aPowerOn|aUpdate)
		c.t = monday
		require.Zero(t, get(r, regA)&aUpdate, "the guest cannot set it")
		c.t = monday.Add(tt.nsec)
		put(r, regB, b24Hours|bSet)
		require.Zero(t, get(r, regA)&aUpdate, "no update while the time is set")
	}
}

// TestLinuxRead is mc146818_get_time of Linux, which must not have to try
// twice, and rtc_cmos's probe, which wants 24-hour mode.
func TestLinuxRead(t *testing.T) {
	r, _ := newAt(monday)
	require.NotZero(t, get(r, regB)&b24Hours)
	put(r, regA, aPowerOn)
	require.Zero(t, get(r, regB)&(bPeriodic|bAlarm|bUpdate))
	require.Zero(t, get(r, regC))
	require.EqualValues(t, dValid, get(r, regD))

	second := get(r, regSeconds)
	require.Zero(t, get(r, regA)&aUpdate)
	require.Equal(t, second, get(r, regSeconds))
	require.Equal(t, []byte{2, 0x20, 0x26, 0x11, 0x23, 0x14, 0x05, 0x59}, show(r))
	require.Zero(t, get(r, regA)&aUpdate)
}

// TestLinuxSet is mc146818_set_time: the divider is reset meanwhile, and the
// clock goes on half a second later.
func TestLinuxSet(t *testing.T) {
	r, c := newAt(monday.Add(300 * time.Millisecond))
	b, a := get(r, regB), get(r, regA)
	put(r, regB, b|bSet)
	put(r, regA, a|0x70)
	c.t = c.t.Add(10 * time.Second)
	require.Equal(t, []byte{2, 0x20, 0x26, 0x11, 0x23, 0x14, 0x05, 0x59}, show(r), "the clock stands")
	put(r, regYear, 0x99)
	put(r, regMonth, 0x12)
	put(r, regDay, 0x31)
	put(r, regHours, 0x23)
	put(r, regMinutes, 0x59)
	put(r, regSeconds, 0x59)
	put(r, Century, 0x19)
	put(r, regB, b)
	put(r, regA, a)

	c.t = c.t.Add(time.Second/2 - 1)
	require.Equal(t, []byte{6, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59}, show(r))
	c.t = c.t.Add(1)
	require.Equal(t, []byte{7, 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00}, show(r))
	c.t = c.t.Add(24 * time.Hour)
	require.Equal(t, []byte{1, 0x20, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00}, show(r))
}

func TestSetKeepsThePhase(t *testing.T) {
	r, c := newAt(monday.Add(300 * time.Millisecond))
	put(r, regB, b24Hours|bSet)
	c.t = c.t.Add(5 * time.Second)
	put(r, regSeconds, 0x10)
	put(r, regB, b24Hours)
	c.t = c.t.Add(700*time.Millisecond - 1)
	require.EqualValues(t, 0x10, get(r, regSeconds))
	c.t = c.t.Add(1)
	require.EqualValues(t, 0x11, get(r, regSeconds))
}

func TestSetWhileRunning(t *testing.T) {
	r, _ := newAt(monday)
	put(r, regHours, 0x03)
	put(r, regYear, 0x25)
	require.Equal(t, []byte{1, 0x20, 0x25, 0x11, 0x23, 0x03, 0x05, 0x59}, show(r), "with the weekday of that date")
}

func TestImpossibleDatesCountOn(t *testing.T) {
	r, _ := newAt(monday)
	put(r, regB, b24Hours|bSet)
	put(r, regMonth, 0x02)
	put(r, regDay, 0x30)
	require.EqualValues(t, 0x30, get(r, regDay))
	put(r, regB, b24Hours)
	require.EqualValues(t, 0x03, get(r, regMonth))
	require.EqualValues(t, 0x02, get(r, regDay))
}

func TestMemory(t *testing.T) {
	r, _ := newAt(monday)
	kept := 0
	for i := byte(0x0e); i < 0x80; i++ {
		if i != Century {
			put(r, i, i^0x5a)
		}
	}
	for i := byte(0x0e); i < 0x80; i++ {
		if i != Century {
			require.Equal(t, i^0x5a, get(r, i))
			kept++
		}
	}
	require.Equal(t, 114-1, kept)
	require.Equal(t, get(r, 0x10), get(r, 0x90), "bit 7 of the index is not part of it")
	put(r, regD, 0)
	require.EqualValues(t, dValid, get(r, regD))
	put(r, regC, 0xff)
	require.Zero(t, get(r, regC))
}

func TestWideAccess(t *testing.T) {
	r, _ := newAt(monday)
	r.Store(0, []byte{0x40, 0x77, 1, 2})
	require.EqualValues(t, 0x77, get(r, 0x40))
	p := make([]byte, 4)
	r.Load(0, p)
	require.Equal(t, []byte{0xff, 0x77, 0xff, 0xff}, p, "the index cannot be read")
}

// Whatever time a guest sets in whatever format, it reads back.
func TestSetAndGet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, c := newAt(time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "now"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")))
		want := time.Unix(rapid.Int64Range(-1<<35, 1<<37).Draw(t, "set"), 0).UTC()
		b := rapid.SampledFrom([]byte{0, b24Hours, bBinary, b24Hours | bBinary}).Draw(t, "mode")
		put(r, regB, b|bSet)
		s := state{ram: r.regs.ram}
		var shown []byte
		for _, i := range []byte{regWeekday, Century, regYear, regMonth, regDay, regHours, regMinutes, regSeconds} {
			put(r, i, s.field(i, want))
			shown = append(shown, s.field(i, want))
		}
		put(r, regB, b)
		require.Equal(t, shown, show(r))
		require.Equal(t, want, r.regs.offset.guest(c.t).Truncate(time.Second))
	})
}
