// Package modules finds kernel modules and what they depend on, in a tree such
// as /lib/modules/VERSION, also one just unpacked where depmod has not run, and
// also one that no file system of this host has, as in a disk image.
package modules

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
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

// Bounds on a tree, which may be a stranger's. Ubuntu's has some 7000 modules and a
// modules.dep of 1 MiB.
const (
	maxIndex = 8 << 20 // bytes of modules.dep, and of modules.builtin
	maxName  = 55      // bytes of a module's name (kernel include/linux/module.h, MODULE_NAME_LEN)
	maxFiles = 1 << 17 // files and folders where depmod has not run
	maxNeeds = 1000    // modules that are resolved at once
)

// A Module is one module file.
type Module struct {
	Name string // as the kernel has it: with '_', never '-'
	FS   fs.FS  // the tree that it is in
	Path string // where it is in FS: "kernel/fs/9p/9p.ko.xz"
	File string // Path and where the tree is, for people
}

// A Tree is the modules of one kernel. It does not change once opened and may
// be used by several goroutines if its file system may.
type Tree struct {
	fsys    fs.FS
	root    string // what fsys is called
	builtin map[string]bool
	paths   map[string]string   // name → path in the tree
	deps    map[string][]string // name → paths in modules.dep, nil where depmod has not run
}

// builtinList is the file that lists the modules that are in the kernel itself.
const builtinList = "modules.builtin"

// Open reads the tree at root, the folder that has "kernel" and modules.builtin in it.
func Open(root string) (*Tree, error) {
	return OpenFS(os.DirFS(root), root)
}

// OpenFS reads the tree that fsys is: "kernel" and modules.builtin are in its root.
// Errors call it root.
func OpenFS(fsys fs.FS, root string) (*Tree, error) {
	t := &Tree{fsys: fsys, root: root, builtin: map[string]bool{}, paths: map[string]string{}}
	err := lines(fsys, builtinList, func(line string) {
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

// IsTree tells whether fsys is what OpenFS wants, by the list of what is built in.
func IsTree(fsys fs.FS) (bool, error) {
	_, err := fs.Stat(fsys, builtinList)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// readDeps reads modules.dep: "path: path path…", where what a module needs
// stands in the reverse of the order to load it in (depmod(8)).
func (t *Tree) readDeps() error {
	deps := map[string][]string{}
	err := lines(t.fsys, "modules.dep", func(line string) {
		path, needs, ok := strings.Cut(line, ":")
		name := nameOf(path)
		if !ok || len(name) > maxName {
			return
		}
		t.paths[name] = path
		paths := strings.Fields(needs)
		slices.Reverse(paths)
		deps[name] = paths
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
	seen := 0
	return fs.WalkDir(t.fsys, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if seen++; seen > maxFiles {
			return fmt.Errorf("it has more than %d files and folders", maxFiles)
		}
		if name := nameOf(file); !d.IsDir() && suffix(file) != "" && plain(file) && len(name) <= maxName {
			t.paths[name] = file
		}
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
//
// Where depmod has not run, the modules themselves are read, and all of them
// together may have 1 GiB.
func (t *Tree) Resolve(names ...string) ([]Module, error) {
	r := resolver{tree: t, state: map[string]int{}, left: maxRead}
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
	left  int64 // bytes of modules that may still be read
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
	case len(r.state) == maxNeeds:
		return fmt.Errorf("%w: %s and %d others are needed at once", ErrModule, filepath.Join(t.root, path), maxNeeds)
	}
	m := Module{Name: name, FS: t.fsys, Path: path, File: filepath.Join(t.root, path)}
	r.state[name] = open
	needs, err := r.needs(m)
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
func (r *resolver) needs(m Module) ([]string, error) {
	if r.tree.deps == nil {
		return r.depends(m)
	}
	var names []string
	for _, path := range r.tree.deps[m.Name] {
		names = append(names, nameOf(path))
	}
	return names, nil
}

// canonical is a module's name as the kernel has it.
func canonical(name string) string {
	return strings.ReplaceAll(name, "-", "_")
}

// nameOf is the name of the module in a file.
func nameOf(file string) string {
	base := path.Base(file)
	return canonical(strings.TrimSuffix(base, suffix(base)))
}

// suffix is the end of a module file's name, "" for other files.
func suffix(file string) string {
	for _, s := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if strings.HasSuffix(file, s) {
			return s
		}
	}
	return ""
}

// plain tells whether a text is printable ASCII, as all paths of modules are: what
// else a stranger's tree has could take over a terminal, or break a list of lines.
func plain(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// lines calls each for every line of a file.
func lines(fsys fs.FS, name string, each func(string)) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(io.LimitReader(f, maxIndex+1)) // it has room for 64 KiB; a long line of modules.dep has a few
	size := 0
	for s.Scan() {
		if size += len(s.Bytes()) + 1; size > maxIndex {
			return fmt.Errorf("%s has more than %d MiB", name, maxIndex>>20)
		}
		if !plain(s.Text()) {
			return fmt.Errorf("%s has a line that is no text: %+q", name, s.Text()[:min(len(s.Text()), 80)])
		}
		each(s.Text())
	}
	return s.Err()
}
