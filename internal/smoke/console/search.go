package console

import (
	"bytes"
	"regexp/syntax"
	"unicode/utf8"
)

// A search looks for the first match of a pattern in text that comes in pieces. It
// runs the pattern's program on each character once, as Pike's machine does, so it
// keeps no text and never goes back, and what it finds does not depend on where the
// pieces were cut. (Package regexp would have to begin anew with every byte, and
// takes the end of what is there for the end of all.)
//
// As in Perl, and in regexp, of two matches the one that begins first is better,
// and of those, the one that the pattern prefers. A match may stand while a better
// one is still possible, "6.1" before "6.12" for "[0-9.]+": it is decided once none
// is, or at the end of the line it ends in.
type search struct {
	prog  *syntax.Prog
	first byte // what a match begins with, where that is one byte
	skips bool

	pos     int64  // of the next character
	prev    rune   // the one before; -1 at the console's start
	part    []byte // a character that has not come whole
	threads []thread
	best    *found

	ready []thread // scratch: those that want a character
	seen  []uint32 // scratch: the turn in which an instruction was met
	turn  uint32
}

// A thread is one way in which the pattern may go on.
type thread struct {
	pc     uint32
	start  int64
	groups []int64 // copied when written to; nil before the first
}

// found is a match, in positions; groups are pairs of them, -1 where one has no part
// in it.
type found struct {
	start, end int64
	groups     []int64
	prev       rune // the one before end
}

const (
	endOfText = -1 // as syntax has it: nothing follows
	unknown   = -2 // what follows has not come
)

// needsNext are the conditions that look at what follows.
const needsNext = syntax.EmptyEndLine | syntax.EmptyEndText | syntax.EmptyWordBoundary | syntax.EmptyNoWordBoundary

func newSearch(p Pattern, pos int64, prev rune) *search {
	s := &search{prog: p.prog, seen: make([]uint32, len(p.prog.Inst))}
	if lit, _ := p.prog.Prefix(); lit != "" && lit[0] < utf8.RuneSelf {
		s.first, s.skips = lit[0], true
	}
	s.restart(pos, prev)
	return s
}

// restart forgets what was seen and goes on at pos.
func (s *search) restart(pos int64, prev rune) {
	s.pos, s.prev, s.part, s.threads, s.best = pos, prev, s.part[:0], s.threads[:0], nil
}

// end is the position behind all that was fed.
func (s *search) end() int64 { return s.pos + int64(len(s.part)) }

// feed takes the next piece. It returns a match once it is decided; the search is
// over then.
func (s *search) feed(text []byte) *found {
	if len(s.part) > 0 {
		text = append(s.part, text...)
		s.part = nil
	}
	for len(text) > 0 {
		if s.skips && len(s.threads) == 0 && s.best == nil {
			n := bytes.IndexByte(text, s.first)
			if n < 0 {
				n = wholeRunes(text)
			}
			if n > 0 {
				s.prev, _ = utf8.DecodeLastRune(text[:n])
				s.pos += int64(n)
				text = text[n:]
				if len(text) == 0 {
					break
				}
			}
		}
		if !utf8.FullRune(text) {
			s.part = append([]byte(nil), text...)
			break
		}
		r, n := utf8.DecodeRune(text)
		if m := s.step(r, n); m != nil {
			return m
		}
		text = text[n:]
	}
	if m, more := s.look(unknown); m != nil && !more {
		return m
	}
	return nil
}

// finish is the match there is when nothing more comes.
func (s *search) finish() *found {
	for rest := s.part; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if m := s.step(r, n); m != nil {
			return m
		}
		rest = rest[n:]
	}
	s.part = nil
	return s.soFar()
}

// soFar is the match there would be if nothing more came.
func (s *search) soFar() *found {
	m, _ := s.look(endOfText)
	return m
}

// step goes over one character.
func (s *search) step(r rune, n int) *found {
	best, more := s.look(r)
	s.best = best
	if best != nil && (!more || r == '\n') {
		return best
	}
	s.threads = s.threads[:0]
	for _, t := range s.ready {
		if i := &s.prog.Inst[t.pc]; i.MatchRune(r) {
			s.threads = append(s.threads, thread{pc: i.Out, start: t.start, groups: t.groups})
		}
	}
	s.pos += int64(n)
	s.prev = r
	return nil
}

// look follows all threads to where they want a character, which it leaves in
// s.ready. It returns the best match up to here, and whether a better one may come.
func (s *search) look(next rune) (best *found, more bool) {
	if s.turn++; s.turn == 0 {
		clear(s.seen)
		s.turn = 1
	}
	l := looker{search: s, next: next, best: s.best}
	s.ready = s.ready[:0]
	for _, t := range s.threads {
		if !l.follow(t) {
			return l.best, l.more()
		}
	}
	if s.best == nil {
		l.follow(thread{pc: uint32(s.prog.Start), start: s.pos})
	}
	return l.best, l.more()
}

// A looker is one look.
type looker struct {
	*search
	next    rune
	best    *found
	waiting bool // a thread waits for what follows
}

func (l *looker) more() bool { return len(l.ready) > 0 || l.waiting }

// follow returns false when it has met a match: those that come behind it are worse.
func (l *looker) follow(t thread) bool {
	for {
		if l.seen[t.pc] == l.turn {
			return true
		}
		l.seen[t.pc] = l.turn
		i := &l.prog.Inst[t.pc]
		switch i.Op {
		case syntax.InstFail:
			return true
		case syntax.InstMatch:
			l.best = &found{start: t.start, end: l.pos, groups: t.groups, prev: l.prev}
			return false
		case syntax.InstAlt, syntax.InstAltMatch:
			if !l.follow(thread{pc: i.Out, start: t.start, groups: t.groups}) {
				return false
			}
			t.pc = i.Arg
		case syntax.InstCapture:
			if n := int(i.Arg) - 2; n >= 0 { // 0 and 1 are the match itself
				t.groups = withGroup(t.groups, n, l.pos, l.prog.NumCap-2)
			}
			t.pc = i.Out
		case syntax.InstEmptyWidth:
			switch want := syntax.EmptyOp(i.Arg); l.holds(want) {
			case no:
				return true
			case perhaps:
				l.waiting = true
				return true
			}
			t.pc = i.Out
		case syntax.InstNop:
			t.pc = i.Out
		default:
			l.ready = append(l.ready, t)
			return true
		}
	}
}

type answer uint8

const (
	no answer = iota
	yes
	perhaps // it depends on what follows
)

// holds tells whether the conditions hold between the last character and the next.
func (l *looker) holds(want syntax.EmptyOp) answer {
	next := l.next
	if next == unknown {
		next = endOfText
		if want&needsNext != 0 {
			want &^= needsNext
			if want&^syntax.EmptyOpContext(l.prev, next) != 0 {
				return no
			}
			return perhaps
		}
	}
	if want&^syntax.EmptyOpContext(l.prev, next) != 0 {
		return no
	}
	return yes
}

// withGroup is a copy of groups with one position set.
func withGroup(groups []int64, n int, pos int64, size int) []int64 {
	out := make([]int64, size)
	if copy(out, groups) == 0 {
		for i := range out {
			out[i] = -1
		}
	}
	out[n] = pos
	return out
}
