package rtc

import "time"

// An offset is how far the guest's clock is ahead of the host's. A
// time.Duration would not do: it ends at 292 years.
type offset struct {
	sec  int64
	nsec int
}

func offsetOf(guest, host time.Time) offset {
	return offset{guest.Unix() - host.Unix(), guest.Nanosecond() - host.Nanosecond()}
}

// guest returns the guest's time at a time of the host.
func (o offset) guest(host time.Time) time.Time {
	return time.Unix(host.Unix()+o.sec, int64(host.Nanosecond()+o.nsec)).UTC()
}

// isTime tells whether the register at index i is part of the time.
func isTime(i byte) bool {
	switch i {
	case regSeconds, regMinutes, regHours, regWeekday, regDay, regMonth, regYear, Century:
		return true
	}
	return false
}

// field encodes a part of t for the register at index i.
func (s *state) field(i byte, t time.Time) byte {
	switch i {
	case regSeconds:
		return s.encode(t.Second())
	case regMinutes:
		return s.encode(t.Minute())
	case regHours:
		return s.encodeHour(t.Hour())
	case regWeekday:
		return s.encode(int(t.Weekday()) + 1)
	case regDay:
		return s.encode(t.Day())
	case regMonth:
		return s.encode(int(t.Month()))
	case regYear:
		return s.encode(t.Year() % 100)
	default: // Century
		return s.encode(t.Year() / 100)
	}
}

// capture puts the time at now into ram.
func (s *state) capture(now time.Time) {
	t := s.offset.guest(now)
	for _, i := range [...]byte{regSeconds, regMinutes, regHours, regWeekday, regDay, regMonth, regYear, Century} {
		s.ram[i] = s.field(i, t)
	}
}

// time is what the registers in ram say, nsec into their second. Values that no calendar has count on:
// the 32nd of January is the 1st of February. The weekday follows from the date.
func (s *state) time(nsec int) time.Time {
	r := &s.ram
	year := s.decode(r[Century])*100 + s.decode(r[regYear])
	return time.Date(year, time.Month(s.decode(r[regMonth])), s.decode(r[regDay]),
		s.decodeHour(r[regHours]), s.decode(r[regMinutes]), s.decode(r[regSeconds]), nsec, time.UTC)
}

// stopOrGo stops the clock or lets it go on, as registers A and B now say.
func (s *state) stopOrGo(now time.Time) {
	held := s.ram[regA]&aDivider != aDivider32k
	stop := held || s.ram[regB]&bSet != 0
	if stop && !s.stopped {
		s.capture(now)
		s.divider = false
	}
	if stop {
		s.divider = s.divider || held
	} else if s.stopped {
		nsec := s.offset.guest(now).Nanosecond()
		if s.divider {
			// A divider that was reset makes its first update after half a
			// second (data sheet, "Divider Control"): this is why Linux sets
			// the time half a second early.
			nsec = int(time.Second / 2)
		}
		s.offset = offsetOf(s.time(nsec), now)
	}
	s.stopped = stop
}

// encode gives a number below 100 the form that register B selects.
func (s *state) encode(n int) byte {
	if s.ram[regB]&bBinary != 0 {
		return byte(n)
	}
	return byte(n/10%10<<4 | n%10)
}

func (s *state) decode(v byte) int {
	if s.ram[regB]&bBinary != 0 {
		return int(v)
	}
	return int(v>>4)*10 + int(v&0xf)
}

// hourPM marks the hours after noon in 12-hour mode, where midnight and noon
// are 12.
const hourPM = 0x80

func (s *state) encodeHour(h int) byte {
	if s.ram[regB]&b24Hours != 0 {
		return s.encode(h)
	}
	v := s.encode((h+11)%12 + 1)
	if h >= 12 {
		v |= hourPM
	}
	return v
}

func (s *state) decodeHour(v byte) int {
	if s.ram[regB]&b24Hours != 0 {
		return s.decode(v)
	}
	h := s.decode(v&^hourPM) % 12
	if v&hourPM != 0 {
		h += 12
	}
	return h
}
