// Package bls reads the entries of the Boot Loader Specification (UAPI.1), type
// #1: one small file for each kernel, which GRUB and systemd-boot show as a menu.
package bls

import (
	"path"
	"slices"
	"strings"
)

// An Entry is what one file says. Paths are those of the file system that it is on.
type Entry struct {
	ID        string // the file's name without ".conf" and without a count of tries
	Title     string
	Version   string
	MachineID string
	SortKey   string
	Linux     string
	Initrds   []string
	Options   string
	// Bad tells that an entry has used up its tries (UAPI.1, "Boot counting").
	Bad bool
}

// Parse reads an entry. Keys that it does not know it passes over.
func Parse(file string, text []byte) Entry {
	var e Entry
	e.ID, e.Bad = identity(file)
	var options []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		n := strings.IndexAny(line, " \t")
		if n < 0 || line[0] == '#' {
			continue
		}
		value := strings.TrimSpace(line[n:])
		switch line[:n] {
		case "title":
			e.Title = value
		case "version":
			e.Version = value
		case "machine-id":
			e.MachineID = value
		case "sort-key":
			e.SortKey = value
		case "linux":
			e.Linux = value
		case "initrd": // several in a line are GRUB's way
			e.Initrds = append(e.Initrds, strings.Fields(value)...)
		case "options":
			options = append(options, value)
		}
	}
	e.Options = strings.Join(options, " ")
	return e
}

// identity takes a file's name apart: "NAME+LEFT-DONE.conf".
func identity(file string) (id string, bad bool) {
	id = strings.TrimSuffix(path.Base(file), ".conf")
	n := strings.LastIndexByte(id, '+')
	if n < 0 {
		return id, false
	}
	left, done, _ := strings.Cut(id[n+1:], "-")
	if left == "" || strings.Trim(left+done, "0123456789") != "" {
		return id, false
	}
	return id[:n], strings.Trim(left, "0") == ""
}

// Sort puts the entry to boot first: those that failed come last, then the order
// is by sort key, machine and version, else by the file's name, newest first
// (UAPI.1, "Sorting").
func Sort(entries []Entry) {
	slices.SortStableFunc(entries, func(a, b Entry) int {
		if a.Bad != b.Bad {
			return truth(a.Bad) - truth(b.Bad)
		}
		if (a.SortKey != "") != (b.SortKey != "") {
			return truth(a.SortKey == "") - truth(b.SortKey == "")
		}
		if a.SortKey != "" {
			for _, c := range []int{strings.Compare(a.SortKey, b.SortKey), strings.Compare(a.MachineID, b.MachineID), Compare(b.Version, a.Version)} {
				if c != 0 {
					return c
				}
			}
		}
		return Compare(b.ID, a.ID)
	})
}

// Default is the index of the entry that loader.conf names, by a pattern as
// systemd-boot has it, and false if it names none.
func Default(entries []Entry, loaderConf []byte) (int, bool) {
	for line := range strings.Lines(string(loaderConf)) {
		words := strings.Fields(line)
		if len(words) != 2 || words[0] != "default" {
			continue
		}
		pattern := strings.ToLower(strings.TrimSuffix(words[1], ".conf"))
		for i, e := range entries {
			if ok, err := path.Match(pattern, strings.ToLower(e.ID)); ok && err == nil {
				return i, true
			}
		}
	}
	return 0, false
}
