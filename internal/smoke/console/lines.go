package console

import (
	"fmt"
	"time"
	"unicode/utf8"
)

const (
	// maxLine is where a line that does not end is cut in two. The kernel's own are
	// shorter (LOG_LINE_MAX is 1 KiB).
	maxLine = 8 << 10
	// lineCost is what a line takes beside its text.
	lineCost = 64
)

// A lineMaker cuts text into lines.
type lineMaker struct {
	start time.Duration // of the line begun
	end   time.Duration // of its last byte
	text  []byte
	begun bool
}

// add takes text that came at that time, and hands on each line that it completes.
func (m *lineMaker) add(at time.Duration, text []byte, complete func(Line)) {
	for _, b := range text {
		if !m.begun {
			m.start, m.begun = at, true
		}
		m.end = at
		if b == '\n' {
			complete(m.line())
			m.text, m.begun = m.text[:0], false
			continue
		}
		if len(m.text) >= maxLine {
			whole := wholeRunes(m.text)
			rest := append([]byte(nil), m.text[whole:]...)
			m.text = m.text[:whole]
			complete(m.line())
			m.text, m.start = append(m.text[:0], rest...), at
		}
		m.text = append(m.text, b)
	}
}

// line is what there is of the line.
func (m *lineMaker) line() Line {
	s, text, _ := ParseStamp(string(m.text))
	return Line{Start: m.start, End: m.end, Kernel: s.Kernel, Text: text}
}

// wholeRunes is the length of p without the character that is cut off at its end.
func wholeRunes(p []byte) int {
	for i := len(p) - 1; i >= 0 && i >= len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if utf8.FullRune(p[i:]) {
				break
			}
			return i
		}
	}
	return len(p)
}

// A lineList is the lines that came: like kept, the first and the last of them.
type lineList struct {
	headMax, tailMax int // in bytes, each line's cost with it

	head, tail         []Line
	headSize, tailSize int
	full               bool // the head
	left               int
	leftFrom, leftTo   time.Duration
}

func (l *lineList) add(line Line) {
	cost := len(line.Text) + lineCost
	if !l.full && l.headSize+cost <= l.headMax {
		l.head, l.headSize = append(l.head, line), l.headSize+cost
		return
	}
	l.full = true
	l.tail, l.tailSize = append(l.tail, line), l.tailSize+cost
	for l.tailSize > l.tailMax {
		out := l.tail[0]
		if l.left++; l.left == 1 {
			l.leftFrom = out.Start
		}
		l.leftTo = out.End
		l.tailSize -= len(out.Text) + lineCost
		l.tail[0] = Line{}
		l.tail = l.tail[1:]
	}
}

// all is the lines, with one in place of those left out.
func (l *lineList) all() []Line {
	out := make([]Line, 0, len(l.head)+len(l.tail)+2)
	out = append(out, l.head...)
	if l.left > 0 {
		out = append(out, Line{
			Start: l.leftFrom, End: l.leftTo, Kernel: -1,
			Text: fmt.Sprintf("… %d lines left out …", l.left),
		})
	}
	return append(out, l.tail...)
}
