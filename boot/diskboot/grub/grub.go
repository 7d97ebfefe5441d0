// Package grub reads grub.cfg, as far as it takes to know which kernel GRUB would
// load by default (GRUB manual §6, "Writing full configuration files directly").
//
// It interprets the script: grub-mkconfig's output decides by "if" and "test"
// which entry is the default, and finds its partitions by "search". What a
// command would do to the machine is left undone, and nothing is written. Every
// run has a bounded number of steps.
package grub

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/huskvm/husk/boot/diskboot/bls"
)

// maxTried bounds how many entries are worth a try.
const maxTried = 64

// A Path is a file on one of the devices, as GRUB names them: "hd0,gpt1".
type Path struct{ Device, File string }

func (p Path) String() string { return "(" + p.Device + ")" + p.File }

// A Key is what "search" goes by.
type Key int

// The keys of "search".
const (
	ByUUID Key = iota
	ByLabel
	ByFile
)

// A Host is the disk that a script runs against.
type Host interface {
	// ReadFile reads a small file.
	ReadFile(Path) ([]byte, error)
	// Stat tells a file's size, or that it is a folder, or false without either.
	Stat(Path) (size int64, folder, ok bool)
	// Search finds the device that has a file system of that UUID or label, or that file.
	Search(by Key, value string) (device string, ok bool)
	// Entries is what "blscfg" shows: the entries in a folder, in the menu's order.
	Entries(folder Path) []bls.Entry
}

// A Menu is what a script shows.
type Menu struct {
	Entries []*Entry
	Notes   []string
	run     *interpreter
	choice  string
}

// An Entry is a line of the menu: a kernel, a further menu, or something else.
type Entry struct {
	Title, ID string
	Sub       []*Entry
	block     []command
	bls       *bls.Entry
	blsDevice string
	submenu   bool
}

// A Kernel is what an entry loads.
type Kernel struct {
	Linux       Path
	Initrds     []Path
	CommandLine string
}

// Load interprets the configuration in a file.
func Load(host Host, file Path) (*Menu, error) {
	text, err := host.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, err := parse(string(text))
	if err != nil {
		return nil, err
	}
	dir, _, _ := cutLast(file.File)
	run := newInterpreter(host, file.Device, "("+file.Device+")"+dir)
	m := &Menu{run: run}
	run.menu = &m.Entries
	if err := run.list(list); err != nil {
		return nil, err
	}
	run.notes, m.Notes = nil, run.notes
	m.choice = run.vars["default"]
	return m, nil
}

func cutLast(file string) (dir, base string, ok bool) {
	n := strings.LastIndexByte(file, '/')
	if n < 0 {
		return "", file, false
	}
	return file[:n], file[n+1:], true
}

// Default is the entries in the order in which to try them: the one that GRUB
// would boot first, then all others as the menu shows them.
func (m *Menu) Default() []*Entry {
	var all []*Entry
	if e := find(m.Entries, m.choice); e != nil {
		all = append(all, e)
	}
	var flat func(list []*Entry)
	flat = func(list []*Entry) {
		for _, e := range list {
			if e.submenu {
				flat(e.Sub)
			} else if len(all) == 0 || all[0] != e {
				all = append(all, e)
			}
		}
	}
	flat(m.Entries)
	return all[:min(len(all), maxTried)]
}

// find resolves the variable "default": titles, identifiers or numbers from 0,
// with ">" between a submenu and what is in it (GRUB manual §16.1.3).
func find(list []*Entry, choice string) *Entry {
	head, rest := cutChoice(choice)
	if head == "" {
		head = "0"
	}
	var found *Entry
	for _, e := range list {
		if e.ID == head || e.Title == head || e.bls != nil && e.ID+".conf" == head {
			found = e
			break
		}
	}
	if n, err := strconv.Atoi(head); found == nil && err == nil && n >= 0 && n < len(list) {
		found = list[n]
	}
	if found != nil && found.submenu {
		return find(found.Sub, rest)
	}
	return found
}

// cutChoice cuts at the first ">"; two of them are one that is meant.
func cutChoice(s string) (head, rest string) {
	for i := 0; i < len(s); i++ {
		if s[i] != '>' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '>' {
			s = s[:i] + s[i+1:]
			continue
		}
		return s[:i], s[i+1:]
	}
	return s, ""
}

// Boot runs an entry, and tells what it loads; false without an error if that is
// no Linux.
func (m *Menu) Boot(e *Entry) (k Kernel, notes []string, ok bool, err error) {
	run := m.run.copy()
	run.vars["chosen"] = e.Title
	if e.bls != nil {
		k, ok = run.entry(e)
		return k, nil, ok, nil
	}
	run.menu = new([]*Entry) // a menu in an entry is not followed
	if err := run.list(e.block); err != nil {
		return Kernel{}, nil, false, fmt.Errorf("entry %q: %w", e.Title, err)
	}
	return run.kernel, run.notes, run.kernel.Linux.File != "", nil
}

// entry fills in a Boot Loader Specification's entry: GRUB's may have variables.
func (in *interpreter) entry(e *Entry) (Kernel, bool) {
	expand := func(s string) string {
		lex := lexer{text: s}
		var b strings.Builder
		for lex.pos < len(s) {
			if lex.peek() == '$' {
				p := lex.variable(true)
				if p.variable {
					b.WriteString(in.value(p.text))
				} else {
					b.WriteString(p.text)
				}
				continue
			}
			b.WriteByte(s[lex.pos])
			lex.pos++
		}
		return b.String()
	}
	on := func(file string) Path { return in.path(file, e.blsDevice) }
	k := Kernel{Linux: on(expand(e.bls.Linux)), CommandLine: strings.Join(strings.Fields(expand(e.bls.Options)), " ")}
	for _, i := range e.bls.Initrds {
		for _, file := range strings.Fields(expand(i)) {
			k.Initrds = append(k.Initrds, on(file))
		}
	}
	return k, e.bls.Linux != ""
}
