package grub

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// Bounds on one run. grub-mkconfig's output takes a few hundred steps.
const (
	maxSteps   = 100_000
	fileSteps  = 1000     // what a command that looks at the disk counts for
	maxBytes   = 16 << 20 // of all lines together
	maxCalls   = 32       // functions and files in one another
	maxValue   = 64 << 10 // bytes of a variable, or of a line with its variables filled in
	maxNotes   = 20
	maxEntries = 4096
)

// An interpreter runs commands.
type interpreter struct {
	host   Host
	vars   map[string]string
	funcs  map[string][]command
	args   []string // of the function that runs
	menu   *[]*Entry
	kernel Kernel
	notes  []string

	steps, calls, entries, bytes int
	returning                    bool
}

// newInterpreter has the variables that GRUB sets before it reads the file.
func newInterpreter(host Host, root, prefix string) *interpreter {
	in := &interpreter{host: host, funcs: map[string][]command{}, vars: map[string]string{
		"root": root, "prefix": prefix, "config_directory": prefix, "grub_platform": "pc", "grub_cpu": "i386",
		// Ubuntu's cloud images try without an initrd, and with one if that has
		// failed. There is one try here.
		"initrdfail": "1",
	}}
	for _, f := range []string{"menuentry_id", "platform_search_hint", "default_font_path", "all_video_module", "timeout_style", "200_final"} {
		in.vars["feature_"+f] = "y"
	}
	return in
}

// copy is an interpreter for one entry. It has its own steps.
func (in *interpreter) copy() *interpreter {
	c := *in
	c.vars, c.funcs = maps.Clone(in.vars), maps.Clone(in.funcs)
	c.steps, c.notes, c.kernel = 0, nil, Kernel{}
	return &c
}

func (in *interpreter) note(format string, args ...any) {
	if len(in.notes) < maxNotes {
		in.notes = append(in.notes, fmt.Sprintf(format, args...))
	}
}

// value is a variable's, or a parameter's of the function.
func (in *interpreter) value(name string) string {
	switch name {
	case "?":
		return "0"
	case "#":
		return strconv.Itoa(len(in.args))
	case "@", "*":
		return strings.Join(in.args, " ")
	}
	if n, err := strconv.Atoi(name); err == nil {
		if n >= 1 && n <= len(in.args) {
			return in.args[n-1]
		}
		return ""
	}
	return in.vars[name]
}

// expand fills in variables. Outside of quotes, a value falls apart at spaces,
// and an empty one is no word.
func (in *interpreter) expand(words []word) ([]string, error) {
	var fields []string
	total := 0
	for _, w := range words {
		var b strings.Builder
		begun := false
		for _, p := range w {
			text := p.text
			if p.variable {
				text = in.value(p.text)
			}
			total += len(text)
			if in.bytes += len(text); total > maxValue || in.bytes > maxBytes {
				return nil, fmt.Errorf("%w: too long with its variables: at most %d bytes in a line, %d in all", ErrScript, maxValue, maxBytes)
			}
			if !p.variable || p.quoted {
				b.WriteString(text)
				begun = begun || p.quoted || text != ""
				continue
			}
			pieces := strings.Fields(text)
			if strings.TrimLeft(text, " \t\n") != text && begun {
				fields, begun = append(fields, b.String()), false
				b.Reset()
			}
			for i, piece := range pieces {
				if i > 0 {
					fields = append(fields, b.String())
					b.Reset()
				}
				b.WriteString(piece)
				begun = true
			}
			if strings.TrimRight(text, " \t\n") != text && begun {
				fields, begun = append(fields, b.String()), false
				b.Reset()
			}
		}
		if begun {
			fields = append(fields, b.String())
		}
	}
	return fields, nil
}

// list runs commands.
func (in *interpreter) list(list []command) error {
	_, err := in.status(list)
	return err
}

// status runs commands, and tells whether the last one did well.
func (in *interpreter) status(list []command) (ok bool, err error) {
	ok = true
	for _, c := range list {
		if in.returning {
			return ok, nil
		}
		if in.steps++; in.steps > maxSteps {
			return false, fmt.Errorf("%w: it takes more than %d steps", ErrScript, maxSteps)
		}
		if ok, err = in.command(c); err != nil {
			return false, err
		}
	}
	return ok, nil
}

func (in *interpreter) command(c command) (bool, error) {
	switch c.words[0].plain() {
	case "if":
		return in.branch(c)
	case "for":
		return true, in.loop(c)
	case "while", "until":
		in.note("a %q loop is passed over", c.words[0].plain())
		return true, nil
	case "function":
		if len(c.words) == 2 {
			in.funcs[c.words[1].plain()] = c.block
		}
		return true, nil
	}
	words, err := in.expand(c.words)
	if err != nil || len(words) == 0 {
		return true, err
	}
	if words[0] == "!" && len(words) > 1 {
		ok, err := in.simple(words[1:], c.block)
		return !ok, err
	}
	return in.simple(words, c.block)
}

// simple runs a function, an assignment or one of GRUB's commands.
func (in *interpreter) simple(words []string, block []command) (bool, error) {
	if body, ok := in.funcs[words[0]]; ok {
		return in.call(body, words[1:])
	}
	if name, value, ok := strings.Cut(words[0], "="); ok && len(words) == 1 && block == nil && strings.Trim(name, nameBytes) == "" {
		in.vars[name] = value
		return true, nil
	}
	return in.builtin(words[0], words[1:], block)
}

const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

func (in *interpreter) branch(c command) (bool, error) {
	for i, a := range c.arms {
		if i == len(c.arms)-1 && i > 0 && a.cond == nil {
			return in.status(a.body)
		}
		yes, err := in.status(a.cond)
		if err != nil {
			return false, err
		}
		if yes {
			return in.status(a.body)
		}
	}
	return true, nil
}

// loop runs "for NAME in WORDS".
func (in *interpreter) loop(c command) error {
	words, err := in.expand(c.words)
	if err != nil || len(words) < 3 || len(c.arms) == 0 {
		return err
	}
	for _, value := range words[3:] {
		in.vars[words[1]] = value
		if in.steps++; in.steps > maxSteps {
			return fmt.Errorf("%w: it takes more than %d steps", ErrScript, maxSteps)
		}
		if err := in.list(c.arms[0].body); err != nil {
			return err
		}
	}
	return nil
}

// call runs a function, or another file, with its own parameters.
func (in *interpreter) call(body []command, args []string) (bool, error) {
	if in.calls++; in.calls > maxCalls {
		return false, fmt.Errorf("%w: more than %d functions or files in one another", ErrScript, maxCalls)
	}
	outer := in.args
	in.args = args
	ok, err := in.status(body)
	in.args, in.returning = outer, false
	in.calls--
	return ok, err
}
