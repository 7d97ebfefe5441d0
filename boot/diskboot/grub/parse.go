package grub

import (
	"errors"
	"fmt"
)

// ErrScript says that a configuration cannot be understood.
var ErrScript = errors.New("bad GRUB configuration")

// Bounds on one script.
const (
	maxScript = 256 << 10 // bytes
	maxNested = 64        // blocks in blocks
)

// A command is one line of a script: its words, and the block that follows where
// a menu entry or a function has one.
type command struct {
	words []word
	block []command
	// For "if": the conditions and what they guard, the last without a condition
	// where there is an "else". For "for": one arm.
	arms []arm
}

type arm struct{ cond, body []command }

// A parser makes commands of tokens.
type parser struct {
	lex   lexer
	depth int
}

// parse reads a whole script.
func parse(text string) ([]command, error) {
	if len(text) > maxScript {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrScript, len(text), maxScript)
	}
	p := parser{lex: lexer{text: text}}
	list, _, err := p.list(false, nil)
	return list, err
}

func (p *parser) fail(format string, args ...any) error {
	line := 1
	for i := range min(p.lex.pos, len(p.lex.text)) {
		if p.lex.text[i] == '\n' {
			line++
		}
	}
	return fmt.Errorf("%w: line %d: %s", ErrScript, line, fmt.Sprintf(format, args...))
}

// list reads commands up to "}" in a block, else up to one of the keywords in
// ends, which it returns, or to the end of the text.
func (p *parser) list(block bool, ends []string) (list []command, end string, err error) {
	if p.depth++; p.depth > maxNested {
		return nil, "", p.fail("more than %d blocks in one another", maxNested)
	}
	defer func() { p.depth-- }()
	for {
		t, ok := p.lex.next()
		switch {
		case !ok && !block && ends == nil:
			return list, "", nil
		case !ok:
			return nil, "", p.fail("the text ends inside a block")
		case t.sign == '}' && block:
			return list, "", nil
		case t.sign == ';':
			continue
		case t.sign != 0:
			return nil, "", p.fail("a %q where a command should be", t.sign)
		}
		key := t.word.plain()
		for _, e := range ends {
			if key == e {
				return list, e, nil
			}
		}
		c, err := p.command(t.word, key)
		if err != nil {
			return nil, "", err
		}
		list = append(list, c)
	}
}

// command reads what follows the first word of a command.
func (p *parser) command(first word, key string) (c command, err error) {
	c.words = []word{first}
	switch key {
	case "if":
		return c, p.condition(&c)
	case "while", "until":
		_, _, err = p.list(false, []string{"do"})
		if err == nil {
			_, _, err = p.list(false, []string{"done"})
		}
		return c, err
	}
	for {
		before := p.lex.pos
		t, ok := p.lex.next()
		switch {
		case !ok || t.sign == ';':
			if key == "for" {
				return c, p.loop(&c)
			}
			return c, nil
		case t.sign == '}': // of the block that the command is in
			p.lex.pos = before
			return c, nil
		case t.sign == '{':
			c.block, _, err = p.list(true, nil)
			return c, err
		}
		c.words = append(c.words, t.word)
	}
}

// condition reads an "if" to its "fi".
func (p *parser) condition(c *command) error {
	for {
		cond, _, err := p.list(false, []string{"then"})
		if err != nil {
			return err
		}
		body, end, err := p.list(false, []string{"elif", "else", "fi"})
		if err != nil {
			return err
		}
		c.arms = append(c.arms, arm{cond, body})
		if end == "else" {
			body, end, err = p.list(false, []string{"fi"})
			if err != nil {
				return err
			}
			c.arms = append(c.arms, arm{nil, body})
		}
		if end == "fi" {
			return nil
		}
	}
}

// loop reads the body of a "for".
func (p *parser) loop(c *command) error {
	if _, _, err := p.list(false, []string{"do"}); err != nil {
		return err
	}
	body, _, err := p.list(false, []string{"done"})
	c.arms = []arm{{nil, body}}
	return err
}
