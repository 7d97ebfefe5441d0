// Package syslinux reads the configuration of SYSLINUX, EXTLINUX, ISOLINUX and of
// U-Boot's "extlinux" (syslinux doc/syslinux.txt, "Configuration file"; U-Boot
// doc/README.pxe).
package syslinux

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// ErrConfig says that a configuration cannot be used.
var ErrConfig = errors.New("bad syslinux configuration")

// Bounds on one configuration.
const (
	maxIncludes = 32
	maxNested   = 8
	maxLabels   = 4096
)

// An Entry is a label and what it loads. Paths are relative to the
// configuration's folder, unless they begin with "/".
type Entry struct {
	Label, Title string
	Linux        string
	Initrds      []string
	Options      string
	appended     bool // it has an APPEND of its own
	foreign      bool // it loads something that is no Linux
}

// A Config is a menu.
type Config struct {
	Entries  []Entry // those that load Linux, the default one first
	fallback string
	choice   string
	options  string
	includes int
}

// Load reads the configuration in a file, and those that it includes, by read.
func Load(read func(file string) ([]byte, error), file string) (*Config, error) {
	text, err := read(file)
	if err != nil {
		return nil, err
	}
	c := &Config{}
	if err := c.parse(read, file, text, 0); err != nil {
		return nil, err
	}
	c.finish()
	return c, nil
}

func (c *Config) parse(read func(string) ([]byte, error), file string, text []byte, depth int) error {
	for line := range strings.Lines(string(text)) {
		key, rest := cut(line)
		if key == "menu" {
			var sub string
			sub, rest = cut(rest)
			key = "menu " + sub
		}
		var e *Entry
		if n := len(c.Entries); n > 0 {
			e = &c.Entries[n-1]
		}
		switch key {
		case "include", "menu include":
			name, _ := cutWord(rest)
			if c.includes++; c.includes > maxIncludes || depth == maxNested {
				return fmt.Errorf("%w: %s: more than %d files included, or %d in one another", ErrConfig, file, maxIncludes, maxNested)
			}
			name = Resolve(file, name)
			if more, err := read(name); err == nil { // one that is not there is passed over
				if err := c.parse(read, name, more, depth+1); err != nil {
					return err
				}
			}
		case "default":
			c.choice = rest
		case "label":
			if len(c.Entries) == maxLabels {
				return fmt.Errorf("%w: %s: more than %d labels", ErrConfig, file, maxLabels)
			}
			c.Entries = append(c.Entries, Entry{Label: rest})
		case "append":
			if e == nil {
				c.options = rest
				continue
			}
			e.appended = true
			e.Options = rest
		default:
			if e != nil {
				e.set(c, key, rest)
			}
		}
	}
	return nil
}

// set takes a line of a label's.
func (e *Entry) set(c *Config, key, rest string) {
	switch key {
	case "kernel", "linux":
		e.Linux = rest
		e.foreign = key == "kernel" && !isLinux(rest)
	case "initrd":
		e.Initrds = strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	case "menu label":
		e.Title = strings.ReplaceAll(rest, "^", "")
	case "menu default":
		c.fallback = e.Label
	case "com32", "boot", "bss", "pxe", "fdimage", "comboot", "config", "localboot":
		e.foreign = true
	}
}

// isLinux goes by a file's extension, as KERNEL does.
func isLinux(file string) bool {
	switch strings.ToLower(path.Ext(file)) {
	case ".c32", ".cbt", ".com", ".bss", ".bs", ".bin", ".img", ".0":
		return false
	}
	return true
}

// finish leaves the entries that load Linux, the default one first.
func (c *Config) finish() {
	var linux []Entry
	chosen := 0
	label, words := cutWord(c.choice)
	byLabel := false
	for _, e := range c.Entries {
		if e.foreign || e.Linux == "" {
			continue
		}
		if !e.appended {
			e.Options = c.options
		}
		if e.Options == "-" {
			e.Options = ""
		}
		e.takeInitrd()
		switch {
		case e.Label == label || e.Label == c.choice:
			chosen, byLabel = len(linux), true
			if words != "" && e.Label != c.choice {
				e.Options = strings.TrimSpace(e.Options + " " + words)
			}
		case e.Label == c.fallback && !byLabel:
			chosen = len(linux)
		}
		linux = append(linux, e)
	}
	if len(linux) == 0 && label != "" && isLinux(label) { // DEFAULT may be a kernel and its options
		e := Entry{Label: label, Linux: label, Options: strings.TrimSpace(c.options + " " + words)}
		e.takeInitrd()
		linux = append(linux, e)
	}
	if chosen > 0 {
		first := linux[chosen]
		copy(linux[1:chosen+1], linux[:chosen])
		linux[0] = first
	}
	c.Entries = linux
}

// takeInitrd takes "initrd=" out of the options, which the loader reads there.
func (e *Entry) takeInitrd() {
	words := strings.Fields(e.Options)
	kept := words[:0]
	for _, w := range words {
		if files, ok := strings.CutPrefix(w, "initrd="); ok {
			if len(e.Initrds) == 0 {
				e.Initrds = strings.FieldsFunc(files, func(r rune) bool { return r == ',' })
			}
			continue
		}
		kept = append(kept, w)
	}
	e.Options = strings.Join(kept, " ")
}

// Resolve makes a path that a configuration has one from the root.
func Resolve(config, file string) string {
	if strings.HasPrefix(file, "/") {
		return path.Clean(file)
	}
	return path.Join("/", path.Dir(config), file)
}

// cut takes the first word off a line, in lower case, and what follows it.
func cut(line string) (key, rest string) {
	key, rest = cutWord(line)
	if strings.HasPrefix(key, "#") {
		return "", ""
	}
	return strings.ToLower(key), rest
}

func cutWord(line string) (word, rest string) {
	line = strings.TrimSpace(line)
	n := strings.IndexAny(line, " \t")
	if n < 0 {
		return line, ""
	}
	return line[:n], strings.TrimSpace(line[n:])
}
