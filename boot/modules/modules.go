// Package modules finds kernel modules and what they depend on, in a tree such
// as /lib/modules/VERSION, also one just unpacked where depmod has not run.
package modules

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The reasons for which this package fails.
var (
	// ErrNotFound says that a tree has no such module.
	ErrNotFound = errors.New("no such kernel module")
	// ErrTree says that a folder is not a tree of kernel modules.
	ErrTree = errors.New("not a tree of kernel modules")
	// ErrModule says that a file is not a kernel module that can be read.
	ErrModule = errors.New("not a readable kernel module")
)

// A Module is one module file.
type Module struct {
	Name string // as the kernel has it: with '_', never '-'
	Path string // relative to the tree's root: "kernel/fs/9p/9p.ko.xz"
	File string // where the file is
}

// A Tree is the modules of one kernel. It does not change once opened and may
// be used by several goroutines.
type Tree struct {
	root    string
	builtin map[string]bool
	paths   map[string]string   // name → path in the tree
	deps    map[string][]string // name → paths in modules.dep, nil where depmod has not run
}

// builtinList is the file that lists the modules that are in the kernel itself.
const builtinList = "modules.builtin"

// Open reads the tree at root, the folder that has "kernel" and modules.builtin in it.
func Open(root string) (*Tree, error) {
	t := &Tree{root: root, builtin: map[string]bool{}, paths: map[string]string{}}
	err := lines(filepath.Join(root, builtinList), func(line string) {
		t.builtin[nameOf(line)] = true
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTree, root, err)
	}
	switch err := t.readDeps(); {
	case err == nil:
		return t, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s: %w", ErrTree, root, err)
	}
	if err := t.walk(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTree, root, err)
	}
	return t, nil
}

// readDeps reads modules.dep: "path: path path…", where what a module needs
// stands in the reverse of the order to load it in (depmod(8)).
func (t *Tree) readDeps() error {
	deps := map[string][]string{}
	err := lines(filepath.Join(t.root, "modules.dep"), func(line string) {
		path, needs, ok := strings.Cut(line, ":")
		if !ok {
			return
		}
		t.paths[nameOf(path)] = path
		paths := strings.Fields(needs)
		slices.Reverse(paths)
		deps[nameOf(path)] = paths
	})
	if err != nil {
		return err
	}
	if len(deps) == 0 { // an empty file is what a package ships before depmod
		return fs.ErrNotExist
	}
	t.deps = deps
	return nil
}

// walk finds the modules by their files.
func (t *Tree) walk() error {
	return filepath.WalkDir(t.root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || suffix(file) == "" {
			return nil
		}
		rel, err := filepath.Rel(t.root, file)
		if err != nil {
			return err
		}
		t.paths[nameOf(rel)] = rel
		return nil
	})
}

// Has says whether the tree has the module, as a file or built in.
func (t *Tree) Has(name string) bool {
	name = canonical(name)
	return t.builtin[name] || t.paths[name] != ""
}

// Present are those of the named modules that the tree has.
func (t *Tree) Present(names ...string) []string {
	var have []string
	for _, name := range names {
		if t.Has(name) {
			have = append(have, name)
		}
	}
	return have
}

// Resolve gives the files to load for the named modules, each after what it
// depends on, none twice. '-' and '_' are the same in a name. Built-in modules
// need no file. A name the tree has not is an ErrNotFound.
func (t *Tree) Resolve(names ...string) ([]Module, error) {
	r := resolver{tree: t, state: map[string]int{}}
	for _, name := range names {
		if err := r.add(canonical(name)); err != nil {
			return nil, err
		}
	}
	return r.list, nil
}

// The states of a module in a resolver.
const (
	open = iota + 1 // being resolved: meeting it again is a loop
	done
)

type resolver struct {
	tree  *Tree
	state map[string]int
	list  []Module
}

func (r *resolver) add(name string) error {
	t := r.tree
	path, isFile := t.paths[name]
	switch {
	case r.state[name] == open:
		return fmt.Errorf("%w: %s: it depends on itself", ErrModule, filepath.Join(t.root, path))
	case r.state[name] == done:
		return nil
	case !isFile && t.builtin[name]:
		return nil
	case !isFile:
		return fmt.Errorf("%w: %s (looked in %s)", ErrNotFound, name, t.root)
	}
	m := Module{Name: name, Path: path, File: filepath.Join(t.root, path)}
	r.state[name] = open
	needs, err := t.needs(m)
	if err != nil {
		return err
	}
	for _, n := range needs {
		if err := r.add(n); err != nil {
			return fmt.Errorf("%s needs %s: %w", name, n, err)
		}
	}
	r.state[name] = done
	r.list = append(r.list, m)
	return nil
}

// needs names what a module depends on.
func (t *Tree) needs(m Module) ([]string, error) {
	if t.deps == nil {
		return m.depends()
	}
	var names []string
	for _, path := range t.deps[m.Name] {
		names = append(names, nameOf(path))
	}
	return names, nil
}

// canonical is a module's name as the kernel has it.
func canonical(name string) string {
	return strings.ReplaceAll(name, "-", "_")
}

// nameOf is the name of the module in a file.
func nameOf(path string) string {
	base := filepath.Base(path)
	return canonical(strings.TrimSuffix(base, suffix(base)))
}

// suffix is the end of a module file's name, "" for other files.
func suffix(path string) string {
	for _, s := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if strings.HasSuffix(path, s) {
			return s
		}
	}
	return ""
}

func lines(file string, each func(string)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20) // a long line of modules.dep has some thousand bytes
	for s.Scan() {
		each(s.Text())
	}
	return s.Err()
}
