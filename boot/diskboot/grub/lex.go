package grub

import "strings"

// A part of a word: text, or a variable whose value takes its place.
type part struct {
	text     string
	variable bool
	quoted   bool // a value is one word, spaces or not
}

// A word of a command, before its variables are known.
type word []part

// plain is what a word says where it has neither variables nor quotes, as
// keywords have none.
func (w word) plain() string {
	if len(w) == 1 && !w[0].variable && !w[0].quoted {
		return w[0].text
	}
	return ""
}

// A token is a word, or one of the signs "{", "}" and ";", which stands for the
// end of a line too.
type token struct {
	sign byte
	word word
}

// A lexer cuts a script into tokens (GRUB manual §6.2, "Shell-like scripting").
type lexer struct {
	text string
	pos  int
}

func (l *lexer) peek() byte {
	if l.pos < len(l.text) {
		return l.text[l.pos]
	}
	return 0
}

// next is the next token, and false at the end.
func (l *lexer) next() (token, bool) {
	for l.pos < len(l.text) {
		switch c := l.peek(); {
		case strings.HasPrefix(l.text[l.pos:], "\\\n"):
			l.pos += 2
		case c == ' ' || c == '\t' || c == '\r':
			l.pos++
		case c == '#':
			if n := strings.IndexByte(l.text[l.pos:], '\n'); n >= 0 {
				l.pos += n
			} else {
				l.pos = len(l.text)
			}
		case c == '\n' || c == ';' || c == '&' || c == '|':
			l.pos++
			return token{sign: ';'}, true
		case c == '{' || c == '}':
			l.pos++
			return token{sign: c}, true
		default:
			return token{word: l.word()}, true
		}
	}
	return token{}, false
}

// word reads a word up to what ends it.
func (l *lexer) word() (w word) {
	for l.pos < len(l.text) {
		switch c := l.peek(); c {
		case ' ', '\t', '\r', '\n', ';', '&', '|', '{', '}':
			return w
		case '\'':
			l.pos++
			end := strings.IndexByte(l.text[l.pos:], '\'')
			if end < 0 {
				end = len(l.text) - l.pos
			}
			w = append(w, part{text: l.text[l.pos : l.pos+end], quoted: true})
			l.pos = min(l.pos+end+1, len(l.text))
		case '"':
			l.pos++
			w = l.quoted(w)
		case '$':
			w = append(w, l.variable(false))
		case '\\':
			l.pos++
			if l.peek() != '\n' && l.pos < len(l.text) {
				w = append(w, part{text: l.text[l.pos : l.pos+1], quoted: true})
			}
			l.pos = min(l.pos+1, len(l.text))
		default:
			start := l.pos
			for l.pos < len(l.text) && !strings.ContainsRune(" \t\r\n;&|{}'\"$\\", rune(l.peek())) {
				l.pos++
			}
			w = append(w, part{text: l.text[start:l.pos]})
		}
	}
	return w
}

// quoted reads up to the closing double quote. A backslash there takes away the
// meaning of "$", of the quote, of itself and of a line's end.
func (l *lexer) quoted(w word) word {
	w = append(w, part{quoted: true}) // "" is a word too
	for l.pos < len(l.text) {
		switch c := l.peek(); c {
		case '"':
			l.pos++
			return w
		case '$':
			w = append(w, l.variable(true))
		case '\\':
			l.pos++
			text := `\`
			if c := l.peek(); c == '$' || c == '"' || c == '\\' {
				text = string(c)
				l.pos++
			} else if c == '\n' {
				text = ""
				l.pos++
			}
			w = append(w, part{text: text, quoted: true})
		default:
			start := l.pos
			for l.pos < len(l.text) && l.peek() != '"' && l.peek() != '$' && l.peek() != '\\' {
				l.pos++
			}
			w = append(w, part{text: l.text[start:l.pos], quoted: true})
		}
	}
	return w
}

// variable reads $NAME, ${NAME} or a positional parameter; a lone "$" is itself.
func (l *lexer) variable(quoted bool) part {
	l.pos++
	rest := l.text[l.pos:]
	if strings.HasPrefix(rest, "{") {
		if end := strings.IndexByte(rest, '}'); end >= 0 {
			l.pos += end + 1
			return part{text: rest[1:end], variable: true, quoted: quoted}
		}
	}
	n := 0
	for n < len(rest) && (isName(rest[n]) && (rest[n] < '0' || rest[n] > '9' || n > 0)) {
		n++
	}
	if n == 0 && rest != "" && (rest[0] >= '0' && rest[0] <= '9' || strings.IndexByte("?@*#", rest[0]) >= 0) {
		n = 1
	}
	if n == 0 {
		return part{text: "$", quoted: quoted}
	}
	l.pos += n
	return part{text: rest[:n], variable: true, quoted: quoted}
}

func isName(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
