package rtc

import "time"

// crystal is the frequency of the oscillator in Hz.
const crystal = 32768

// soonest is the shortest wait for a timer: half the period of 8192 Hz, the
// fastest interrupt. With it, no clock of the host can make timers spin.
//
// A guest cannot burn the host by interrupts: there is no timer while the line
// is up, so the next interrupt needs a read of register C by the guest.
const soonest = time.Second / 16384

// check brings the flags of register C up to now. They come up whether their
// interrupts are enabled or not.
func (s *state) check(now time.Time) {
	since := s.checked
	s.checked = now
	if period, ok := s.period(); ok && ticks(since)/period != ticks(now)/period {
		s.ram[regC] |= cPeriodic
	}
	if s.stopped {
		return
	}
	from, to := s.offset.guest(since), s.offset.guest(now)
	if from.Unix() != to.Unix() {
		s.ram[regC] |= cUpdate
	}
	if t, ok := s.nextAlarm(from); ok && !t.After(to) {
		s.ram[regC] |= cAlarm
	}
}

// pending tells whether a flag is up whose interrupt is enabled.
func (s *state) pending() bool { return s.ram[regC]&s.ram[regB]&cFlags != 0 }

// update drives the line, and sets the timer for the next interrupt.
func (r *RTC) update(now time.Time) {
	if r.closed {
		return
	}
	s := &r.regs
	if irq := s.pending(); irq != r.irq {
		r.irq = irq
		if r.line != nil {
			r.line.Set(irq)
		}
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	wait, ok := s.nextInterrupt(now)
	if r.irq || !ok {
		return
	}
	wait = max(wait, soonest)
	if r.timer == nil {
		r.timer = time.AfterFunc(wait, r.expire)
	} else {
		r.timer.Reset(wait)
	}
}

// expire is the timer's function. It may come too early or once too often:
// check goes by the clock.
func (r *RTC) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.regs.check(now)
	r.update(now)
}

// nextInterrupt returns how long after now the next flag comes up whose
// interrupt is enabled, and false if none is.
func (s *state) nextInterrupt(now time.Time) (wait time.Duration, ok bool) {
	sooner := func(d time.Duration) {
		if !ok || d < wait {
			wait, ok = d, true
		}
	}
	b := s.ram[regB]
	if period, on := s.period(); on && b&bPeriodic != 0 {
		sooner(tickTime((ticks(now)/period + 1) * period).Sub(now))
	}
	if s.stopped {
		return wait, ok
	}
	t := s.offset.guest(now)
	if b&bUpdate != 0 {
		sooner(time.Second - time.Duration(t.Nanosecond()))
	}
	if b&bAlarm != 0 {
		if alarm, set := s.nextAlarm(t); set {
			sooner(alarm.Sub(t))
		}
	}
	return wait, ok
}

// period returns the ticks of the crystal between two periodic interrupts, and
// false if there are none (data sheet, table 5).
func (s *state) period() (int64, bool) {
	rate := s.ram[regA] & aRate
	if rate == 0 || s.ram[regA]&aDivider != aDivider32k {
		return 0, false
	}
	if rate < 3 { // 256 and 128 Hz, as 8 and 9
		rate += 7
	}
	return 1 << (rate - 1), true
}

// ticks counts the crystal's ticks until t.
func ticks(t time.Time) int64 {
	return t.Unix()*crystal + int64(t.Nanosecond())*crystal/int64(time.Second)
}

// tickTime is when a tick comes, rounded up to a nanosecond.
func tickTime(tick int64) time.Time {
	sec, part := tick/crystal, tick%crystal
	return time.Unix(sec, (part*int64(time.Second)+crystal-1)/crystal)
}

// nextAlarm returns the first second after t that the alarm registers match, and
// false if there is none.
func (s *state) nextAlarm(t time.Time) (time.Time, bool) {
	hour := s.ram[regHoursAlarm]
	minute := s.ram[regMinutesAlarm]
	second := s.ram[regSecondsAlarm]
	if !anyValue(hour) && s.decodeHour(hour) > 23 ||
		!anyValue(minute) && s.decode(minute) > 59 ||
		!anyValue(second) && s.decode(second) > 59 {
		return t, false
	}
	t = t.Truncate(time.Second).Add(time.Second)
	for end := t.Add(24 * time.Hour); t.Before(end); {
		switch {
		case !anyValue(hour) && s.decodeHour(hour) != t.Hour():
			t = t.Truncate(time.Hour).Add(time.Hour)
		case !anyValue(minute) && s.decode(minute) != t.Minute():
			t = t.Truncate(time.Minute).Add(time.Minute)
		case !anyValue(second) && s.decode(second) != t.Second():
			t = t.Add(time.Second)
		default:
			return t, true
		}
	}
	return t, false
}

// anyValue tells whether an alarm register matches any time.
func anyValue(v byte) bool { return v >= 0xc0 }
