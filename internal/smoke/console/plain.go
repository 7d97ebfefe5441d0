package console

// plain turns what came into text: line ends become "\n", and what steers a
// terminal goes. It is fed in pieces of any size, and what comes out does not
// depend on where they were cut.
//
// A carriage return ends a line as "\n" does; those that stand together, and one
// "\n" behind them, are one end. So a progress display that begins its line anew is
// many lines, and a kernel's message behind it has a line of its own. Control
// characters other than tab are left out: no line of text has them for a reason.
type plain struct {
	state  plainState
	str    []byte // the string being skipped, should it prove to be none
	left   int    // of a palette's digits
	column bool   // the line has text
	ended  bool   // by a carriage return, which a "\n" may follow
}

type plainState uint8

const (
	ground    plainState = iota
	escape               // behind ESC
	between              // behind ESC and an intermediate byte
	control              // in CSI: ECMA-48 §5.4
	system               // behind ESC ], of which the Linux console has two odd ones
	palette              // ESC ] P and seven digits, without an end: console_codes(4)
	str                  // in OSC, DCS, SOS, PM or APC: ECMA-48 §5.6
	strEscape            // behind ESC in a string, where "\" ends it
)

// maxString is where a string without an end is taken for text.
const maxString = 4096

// feed appends what p adds to the text.
func (c *plain) feed(out, p []byte) []byte {
	for _, b := range p {
		out = c.byte(out, b)
	}
	return out
}

func (c *plain) byte(out []byte, b byte) []byte {
	switch c.state {
	case ground:
		return c.text(out, b)
	case str, strEscape, system, palette:
		return c.inString(out, b)
	}
	switch {
	case b == esc:
		c.state = escape
	case b < 0x20 || b >= 0x7f:
		// Not a sequence: a line's end, or a character of UTF-8, is worth more than
		// what was torn before it.
		c.state = ground
		return c.text(out, b)
	case c.state == control:
		if b >= 0x40 {
			c.state = ground
		}
	case b < 0x30:
		c.state = between
	case c.state == between:
		c.state = ground
	case b == '[':
		c.state = control
	case b == ']':
		c.state, c.str = system, c.str[:0]
	case b == 'P' || b == 'X' || b == '^' || b == '_':
		c.state, c.str = str, c.str[:0]
	default:
		c.state = ground
	}
	return out
}

// inString is a byte of a control string. A string has no line's end in it: one
// that does is none, and its text must not be lost, as it may be a kernel's last
// words behind half a sequence.
func (c *plain) inString(out []byte, b byte) []byte {
	switch {
	case c.state == strEscape && b == '\\':
		c.state = ground
		return out
	case c.state == strEscape:
		c.state = escape
		return c.byte(c.restore(out), b)
	case b == '\n' || b == '\r' || len(c.str) >= maxString:
		c.state = ground
		return c.text(c.restore(out), b)
	case b == bel || b == can || b == sub:
		c.state = ground
		return out
	case b == esc:
		c.state = strEscape
		return out
	case c.state == system && b == 'R':
		c.state = ground
		return out
	case c.state == system && b == 'P':
		c.state, c.left = palette, 7
		return out
	case c.state == palette:
		if c.left--; c.left == 0 {
			c.state = ground
		}
	default:
		c.state = str
	}
	c.str = append(c.str, b)
	return out
}

// restore appends the string that was none.
func (c *plain) restore(out []byte) []byte {
	for _, b := range c.str {
		out = c.text(out, b)
	}
	c.str = c.str[:0]
	return out
}

// flush appends what was held back, as no more comes.
func (c *plain) flush(out []byte) []byte {
	if c.state == str || c.state == system || c.state == palette || c.state == strEscape {
		out = c.restore(out)
	}
	c.state = ground
	return out
}

const (
	bel = 0x07
	can = 0x18
	sub = 0x1a
	esc = 0x1b
	del = 0x7f
)

func (c *plain) text(out []byte, b byte) []byte {
	switch {
	case b == esc:
		c.state = escape
		return out
	case b == '\r':
		if c.column {
			out = append(out, '\n')
			c.column, c.ended = false, true
		}
		return out
	case b == '\n':
		if c.ended {
			c.ended = false
			return out
		}
		c.column = false
		return append(out, '\n')
	case b < 0x20 && b != '\t' || b == del:
		return out
	}
	c.column, c.ended = true, false
	return append(out, b)
}
