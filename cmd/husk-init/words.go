package main

import (
	"errors"
	"strings"
)

// Errors of a line.
var errQuote = errors.New("a quote is not closed")

// A splitter takes a line apart.
type splitter struct {
	words   []string
	word    strings.Builder
	started bool // a word has begun, maybe an empty one: ""
}

func (s *splitter) end() {
	if s.started {
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.started = false
}

// split takes a line apart at spaces. Quotes of both kinds keep spaces. In a
// shell's line ';', "&&" and "||" are words of their own, preceded by NUL so
// that no quoted word is one, and '#' starts a comment.
func split(line string, shell bool) ([]string, error) {
	if strings.Contains(line, "\x00") {
		return nil, errors.New("a NUL byte")
	}
	var s splitter
	var quote byte
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			s.word.WriteByte(c)
		case c == '"', c == '\'' && shell:
			quote, s.started = c, true
		case c == '\\' && shell && i+1 < len(line):
			i++
			s.started = true
			s.word.WriteByte(line[i])
		case c == ' ', c == '\t', c == '\n', c == '\r':
			s.end()
		case c == '#' && shell && !s.started:
			return s.words, nil
		case shell && operator(line[i:]) != "":
			op := operator(line[i:])
			s.end()
			s.words = append(s.words, "\x00"+op)
			i += len(op) - 1
		default:
			s.started = true
			s.word.WriteByte(c)
		}
	}
	if quote != 0 {
		return nil, errQuote
	}
	s.end()
	return s.words, nil
}

// operator is what a line starts with that stands between commands.
func operator(line string) string {
	for _, op := range []string{";", "&&", "||"} {
		if strings.HasPrefix(line, op) {
			return op
		}
	}
	return ""
}
