package image

import (
	"strings"
	"unicode"
)

// plainText is a text without what could control a terminal: registries and archives have
// their words in errors and notes. Lines stay, as errors that are joined have some.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			return r
		case r == '\t':
			return ' '
		}
		return unicode.ReplacementChar
	}, s)
}

// plainLine is a text in one line: one that others wrote whole, and that could else look
// as if husk had said more.
func plainLine(s string) string { return strings.ReplaceAll(plainText(s), "\n", " ") }

// A plainError is an error that can be shown on a terminal.
type plainError struct{ error }

func (e plainError) Error() string { return plainText(e.error.Error()) }

func (e plainError) Unwrap() error { return e.error }

// plainly makes an error one that can be shown; nil stays.
func plainly(err error) error {
	if err == nil {
		return nil
	}
	return plainError{err}
}

// A plainProgress tells a Progress only what can be shown on a terminal.
type plainProgress struct{ Progress }

func (p plainProgress) Note(text string) { p.Progress.Note(plainLine(text)) }

// A foreignError is an error whose text a registry wrote.
type foreignError struct{ error }

func (e foreignError) Error() string { return plainLine(e.error.Error()) }

func (e foreignError) Unwrap() error { return e.error }
