package grub

import (
	"path"
	"strconv"
	"strings"
)

// builtin runs one of GRUB's commands. Those that only change the screen or the
// firmware's state do well, and do nothing.
func (in *interpreter) builtin(name string, args []string, block []command) (bool, error) {
	switch name {
	case "set":
		for _, a := range args {
			if name, value, ok := strings.Cut(a, "="); ok {
				in.vars[name] = value
			}
		}
	case "unset":
		for _, a := range args {
			delete(in.vars, a)
		}
	case "[", "test":
		if n := len(args); name == "[" && n > 0 && args[n-1] == "]" {
			args = args[:n-1]
		}
		t := tester{in: in, args: args}
		return t.or(), nil
	case "false", "hwmatch", "cmostest", "keystatus", "regexp", "loadfont":
		return false, nil
	case "return":
		in.returning = true
	case "search", "search.fs_uuid", "search.fs_label", "search.file":
		in.steps += fileSteps
		return in.search(name, args), nil
	case "load_env":
		in.steps += fileSteps
		return in.loadEnv(args), nil
	case "menuentry", "submenu":
		return true, in.menuEntry(name == "submenu", args, block)
	case "blscfg":
		in.steps += fileSteps
		return true, in.blscfg()
	case "source", ".", "configfile":
		in.steps += fileSteps
		return in.source(args)
	case "linux", "linux16", "linuxefi":
		in.linux(args)
	case "initrd", "initrd16", "initrdefi":
		for _, a := range args {
			if !strings.HasPrefix(a, "--") {
				in.kernel.Initrds = append(in.kernel.Initrds, in.path(a, in.vars["root"]))
			}
		}
	}
	return true, nil
}

// path takes a file's name apart: "(DEVICE)/FILE", or a file on some device.
func (in *interpreter) path(file, device string) Path {
	if rest, ok := strings.CutPrefix(file, "("); ok {
		if d, f, ok := strings.Cut(rest, ")"); ok {
			device, file = d, f
		}
	}
	return Path{device, path.Clean("/" + file)}
}

// linux remembers the kernel. A word with spaces is quoted, for the kernel to
// take it as one.
func (in *interpreter) linux(args []string) {
	for len(args) > 0 && strings.HasPrefix(args[0], "--") {
		args = args[1:]
	}
	if len(args) == 0 {
		return
	}
	words := make([]string, len(args)-1)
	for i, a := range args[1:] {
		if strings.ContainsAny(a, " \t") && !strings.Contains(a, `"`) {
			a = `"` + a + `"`
		}
		words[i] = a
	}
	in.kernel = Kernel{Linux: in.path(args[0], in.vars["root"]), CommandLine: strings.Join(words, " ")}
}

// search sets a variable, "root" if nothing else is said, to the device that has
// what is asked for. Hints are of no interest: there is one disk.
func (in *interpreter) search(name string, args []string) bool {
	by, variable := ByFile, ""
	switch name {
	case "search.fs_uuid":
		by, variable = ByUUID, "root"
	case "search.fs_label":
		by, variable = ByLabel, "root"
	case "search.file":
		variable = "root"
	}
	var values []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--fs-uuid" || a == "-u":
			by = ByUUID
		case a == "--label" || a == "-l":
			by = ByLabel
		case a == "--file" || a == "-f":
			by = ByFile
		case a == "--set" || a == "-s":
			variable = "root"
			if i+1 < len(args) && i+2 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				variable = args[i+1]
				i++
			}
		case strings.HasPrefix(a, "--set="):
			variable = strings.TrimPrefix(a, "--set=")
		case a == "--hint" || a == "-h":
			i++
		case strings.HasPrefix(a, "-"):
		default:
			values = append(values, a)
		}
	}
	if len(values) == 0 {
		return false
	}
	if name != "search" && len(values) > 1 {
		variable = values[1]
	}
	device, ok := in.host.Search(by, values[0])
	if !ok {
		in.note("search finds nothing with %s on this disk", values[0])
		return false
	}
	if variable != "" {
		in.vars[variable] = device
	}
	return true
}

// loadEnv reads the variables that the running system has saved (GRUB manual
// §15, "Environment block").
func (in *interpreter) loadEnv(args []string) bool {
	file := in.vars["prefix"] + "/grubenv"
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case (a == "-f" || a == "--file") && i+1 < len(args):
			file = args[i+1]
			i++
		case strings.HasPrefix(a, "--file="):
			file = strings.TrimPrefix(a, "--file=")
		}
	}
	text, err := in.host.ReadFile(in.path(file, in.vars["root"]))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "=")
		if ok && !strings.HasPrefix(name, "#") && len(value) < maxValue {
			in.vars[name] = strings.ReplaceAll(value, `\\`, `\`)
		}
	}
	return true
}

// menuEntry adds to the menu. A submenu's block is run at once, to know what is in it.
func (in *interpreter) menuEntry(submenu bool, args []string, block []command) error {
	if in.entries++; in.entries > maxEntries {
		return nil
	}
	e := &Entry{submenu: submenu, block: block}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--id" && i+1 < len(args):
			e.ID = args[i+1]
			i++
		case strings.HasPrefix(a, "--id="):
			e.ID = strings.TrimPrefix(a, "--id=")
		case a == "--class" || a == "--users" || a == "--hotkey" || a == "--source":
			i++
		case strings.HasPrefix(a, "--"):
		case e.Title == "":
			e.Title = a
		}
	}
	*in.menu = append(*in.menu, e)
	if !submenu {
		return nil
	}
	outer := in.menu
	in.menu = &e.Sub
	_, err := in.call(block, nil)
	in.menu = outer
	return err
}

// blscfg adds the entries of the Boot Loader Specification: those of $blsdir, or
// of the usual folders.
func (in *interpreter) blscfg() error {
	root := in.vars["root"]
	if boot := in.vars["boot"]; boot != "" { // Fedora: where /boot is
		root = boot
	}
	folders := []Path{{root, "/loader/entries"}, {root, "/boot/loader/entries"}}
	if dir := in.vars["blsdir"]; dir != "" {
		folders = []Path{in.path(dir, root)}
	}
	for _, folder := range folders {
		entries := in.host.Entries(folder)
		for _, b := range entries {
			if in.entries++; in.entries <= maxEntries {
				*in.menu = append(*in.menu, &Entry{Title: b.Title, ID: b.ID, bls: &b, blsDevice: folder.Device})
			}
		}
		if len(entries) > 0 {
			break
		}
	}
	return nil
}

// source runs another file. One that cannot be read or understood fails alone.
func (in *interpreter) source(args []string) (bool, error) {
	if len(args) == 0 {
		return false, nil
	}
	file := in.path(args[0], in.vars["root"])
	text, err := in.host.ReadFile(file)
	if err != nil {
		return false, nil //nolint:nilerr // GRUB's source fails, and the script goes on
	}
	list, err := parse(string(text))
	if err != nil {
		in.note("%v: %v", file, err)
		return false, nil
	}
	return in.call(list, nil)
}

// A tester evaluates "test": expressions with -a, -o, "!" and parentheses.
type tester struct {
	in    *interpreter
	args  []string
	depth int
}

func (t *tester) peek(n int) string {
	if n < len(t.args) {
		return t.args[n]
	}
	return ""
}

func (t *tester) or() bool {
	ok := t.and()
	for t.peek(0) == "-o" {
		t.args = t.args[1:]
		right := t.and()
		ok = ok || right
	}
	return ok
}

func (t *tester) and() bool {
	ok := t.term()
	for t.peek(0) == "-a" {
		t.args = t.args[1:]
		right := t.term()
		ok = ok && right
	}
	return ok
}

// term is one comparison, one question about a file, or one word, which is true
// unless it is empty.
func (t *tester) term() bool {
	if t.depth++; t.depth > maxNested {
		t.args = nil
		return false
	}
	defer func() { t.depth-- }()
	a, op, b := t.peek(0), t.peek(1), t.peek(2)
	if len(t.args) >= 3 {
		if ok, known := compare(a, op, b); known {
			t.args = t.args[3:]
			return ok
		}
	}
	if len(t.args) == 0 {
		return false
	}
	t.args = t.args[1:]
	switch {
	case a == "!":
		return !t.term()
	case a == "(" && len(t.args) > 0:
		ok := t.or()
		if t.peek(0) == ")" {
			t.args = t.args[1:]
		}
		return ok
	case len(t.args) > 0:
		if ok, known := t.question(a, op); known {
			t.args = t.args[1:]
			return ok
		}
	}
	return a != ""
}

// question answers an option about a word or a file, if it is one.
func (t *tester) question(option, of string) (ok, known bool) {
	switch option {
	case "-n":
		return of != "", true
	case "-z":
		return of == "", true
	case "-e", "-f", "-s", "-d":
	default:
		return false, false
	}
	t.in.steps += fileSteps
	size, folder, ok := t.in.host.Stat(t.in.path(of, t.in.vars["root"]))
	switch option {
	case "-f":
		ok = ok && !folder
	case "-s":
		ok = ok && size > 0
	case "-d":
		ok = ok && folder
	}
	return ok, true
}

// compare does what an operator between two words says, if it is one.
func compare(a, op, b string) (ok, known bool) {
	switch op {
	case "=", "==":
		return a == b, true
	case "!=":
		return a != b, true
	}
	x, _ := strconv.ParseInt(a, 0, 64)
	y, _ := strconv.ParseInt(b, 0, 64)
	switch op {
	case "-eq":
		return x == y, true
	case "-ne":
		return x != y, true
	case "-lt":
		return x < y, true
	case "-le":
		return x <= y, true
	case "-gt":
		return x > y, true
	case "-ge":
		return x >= y, true
	}
	return false, false
}
