package console

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"
)

// ErrEnded says that the console ended without what was expected.
var ErrEnded = errors.New("the console ended")

const (
	// expectPiece is what an Expect looks at between two looks at its context, some
	// 40 ms of the slowest pattern's work.
	expectPiece = 4 << 10
	// lastLookTime bounds what is done behind the context's end. The window's text takes
	// that long with patterns of twenty steps.
	lastLookTime = time.Second
)

// settle is how long a console must be quiet for a match to be taken that more text
// could still change: of a "$" at the end of a prompt, or of a number's digits.
const settle = 100 * time.Millisecond

// A Cursor is a position on a console, for one goroutine at a time.
type Cursor struct {
	t    *Transcript
	pos  int64
	prev rune // the character before pos
}

// Cursor makes a cursor at the console's first byte.
func (t *Transcript) Cursor() *Cursor { return &Cursor{t: t, prev: endOfText} }

// Expect waits for a match of p behind the cursor, and moves the cursor behind it.
// It returns ctx's cause when that ends first, and ErrEnded when the console was
// closed without a match; the cursor stays then. What is on the console already is
// looked at first, also with a ctx that has ended, but for no longer than a second
// then.
//
// A match is taken as soon as no better one is possible (an earlier one, or a longer
// one where the pattern prefers that), at the end of its line, or when the console
// has been quiet for a tenth of a second: so "login: " is found at once, and
// "[0-9]+" has all digits.
//
// The last megabyte of text is held for cursors. One that is further behind goes on
// with the oldest text there is.
func (c *Cursor) Expect(ctx context.Context, p Pattern) (Match, error) {
	s := newSearch(p, c.pos, c.prev)
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		wake, closed, m := c.t.advance(s, func() bool { return ctx.Err() == nil })
		switch {
		case m != nil:
			return c.take(m), nil
		case closed:
			if m = s.finish(); m == nil {
				return Match{}, ErrEnded
			}
			return c.take(m), nil
		}
		var timeUp <-chan time.Time
		if s.soFar() != nil {
			quiet.Reset(settle)
			timeUp = quiet.C
		}
		select {
		case <-wake:
		case <-timeUp:
			return c.take(s.soFar()), nil
		case <-ctx.Done():
			if m := c.lastLook(s); m != nil {
				return c.take(m), nil
			}
			return Match{}, context.Cause(ctx)
		}
	}
}

// lastLook takes what has come by now, and a match that could still change: that
// the time is up must not hide what is there.
func (c *Cursor) lastLook(s *search) *found {
	end, begun := c.t.end(), time.Now()
	more := func() bool { return s.end() < end && time.Since(begun) < lastLookTime }
	if _, _, m := c.t.advance(s, more); m != nil {
		return m
	}
	return s.soFar()
}

func (c *Cursor) take(m *found) Match {
	c.pos, c.prev = m.end, m.prev
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	return c.t.match(m)
}

// advance feeds s the text that is there, while it is to go on. Without a match it
// returns what tells of more, or that no more comes.
func (t *Transcript) advance(s *search, goOn func() bool) (wake <-chan struct{}, closed bool, m *found) {
	for goOn() {
		text, at, wake, closed := t.behind(s.end())
		if len(text) == 0 {
			return wake, closed, nil
		}
		if at != s.end() {
			s.restart(at, utf8.RuneError) // no line begins there that we know of
		}
		if m := s.feed(text); m != nil {
			return nil, false, m
		}
	}
	return nil, false, nil
}

// end is the position behind all text so far.
func (t *Transcript) end() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.window.end()
}

// behind is the next text behind pos and where it begins, or what to wait for.
func (t *Transcript) behind(pos int64) (text []byte, at int64, wake <-chan struct{}, closed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, at = t.window.from(pos, expectPiece)
	if len(text) == 0 && !t.closed && t.wake == nil {
		t.wake = make(chan struct{})
	}
	return text, at, t.wake, t.closed
}

// lastRune is the last character of text; endOfText where there is none.
func lastRune(text []byte) rune {
	if len(text) == 0 {
		return endOfText
	}
	r, _ := utf8.DecodeLastRune(text)
	return r
}
