package gotest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/huskvm/husk/boot/initramfs"
)

// ErrTooLarge is more than was allowed to be taken along.
var ErrTooLarge = errors.New("too much to take into the guest")

// A Bundle is the files of this host that are taken into a guest, each to its own path.
type Bundle struct {
	exclude []string
	limit   int64
	size    int64
	entries map[string]entry // by absolute path
	bulk    map[string]int64 // how much is below what stands in a folder that was added
}

// An entry is one thing in the guest.
type entry struct {
	file    string // of the host, whose content it has
	link    string // where it leads, of a symbolic link
	content string // where neither is set
	perm    fs.FileMode
	dir     bool
}

// versioning are folders that tests have no business in, and that are large.
var versioning = []string{".git", ".hg", ".svn"}

// NewBundle is one with at most limit bytes. Of folders, what matches one of the
// patterns is left out: by its name, or by its path from the folder on
// (path.Match).
func NewBundle(limit int64, exclude []string) (*Bundle, error) {
	for _, pattern := range exclude {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	return &Bundle{
		exclude: slices.Concat(versioning, exclude), limit: limit,
		entries: map[string]entry{}, bulk: map[string]int64{},
	}, nil
}

// Size is how many bytes the files have.
func (b *Bundle) Size() int64 { return b.size }

// MakeDir makes a folder, empty unless something in it is added.
func (b *Bundle) MakeDir(dir string, perm fs.FileMode) {
	b.put(dir, entry{dir: true, perm: perm})
}

// AddText adds a file of the text given.
func (b *Bundle) AddText(file, text string) {
	b.put(file, entry{content: text, perm: 0o644})
}

// Add adds a file, or a folder with all that is in it.
func (b *Bundle) Add(name string) error {
	name, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return b.addFolder(name)
	default:
		return b.addFile(name, info, name)
	}
}

// addFolder walks through a folder. Symbolic links stay links, but for those to
// files outside of it: these are files there.
func (b *Bundle) addFolder(root string) error {
	// A root that is a link is the folder that it leads to, under its own name.
	folder, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	return filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(folder, name)
		if err != nil {
			return err
		}
		name = filepath.Join(root, relative)
		if relative != "." && b.excluded(relative) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has gone meanwhile
			return nil
		case err != nil:
			return err
		case d.IsDir():
			b.MakeDir(name, info.Mode().Perm())
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			return b.addLink(root, name)
		}
		top, _, _ := strings.Cut(relative, string(filepath.Separator))
		return b.addFile(name, info, filepath.Join(root, top))
	})
}

func (b *Bundle) excluded(relative string) bool {
	return slices.ContainsFunc(b.exclude, func(pattern string) bool {
		byName, _ := path.Match(pattern, path.Base(relative))
		byPath, _ := path.Match(pattern, relative)
		return byName || byPath
	})
}

func (b *Bundle) addLink(root, name string) error {
	target, err := os.Readlink(name)
	if err != nil {
		return err
	}
	whole := target
	if !filepath.IsAbs(whole) {
		whole = filepath.Join(filepath.Dir(name), target)
	}
	info, err := os.Stat(name)
	inside := strings.HasPrefix(filepath.Clean(whole)+"/", root+"/")
	if err == nil && info.Mode().IsRegular() && !inside {
		return b.addFile(name, info, name)
	}
	b.put(name, entry{link: target})
	return nil
}

// addFile adds a file; pipes and the like are passed over. Its size counts for top.
func (b *Bundle) addFile(name string, info fs.FileInfo, top string) error {
	if _, there := b.entries[name]; there || !info.Mode().IsRegular() {
		return nil
	}
	b.size += info.Size()
	b.bulk[top] += info.Size()
	b.put(name, entry{file: name, perm: info.Mode().Perm()})
	return nil
}

func (b *Bundle) put(name string, e entry) { b.entries[filepath.Clean(name)] = e }

// Check is an ErrTooLarge, with what takes most, where there is more than allowed.
func (b *Bundle) Check() error {
	if b.size <= b.limit {
		return nil
	}
	tops := slices.SortedFunc(maps.Keys(b.bulk), func(x, y string) int { return cmp.Compare(b.bulk[y], b.bulk[x]) })
	var most []string
	for _, top := range tops[:min(3, len(tops))] {
		most = append(most, fmt.Sprintf("%s has %s", top, mib(b.bulk[top])))
	}
	return fmt.Errorf("%w: %s, at most %s are allowed: %s", ErrTooLarge, mib(b.size), mib(b.limit), strings.Join(most, ", "))
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// Write writes all of it as an initramfs.
func (b *Bundle) Write(w io.Writer) error {
	a := initramfs.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(b.entries)) { // a folder before what is in it
		if err := b.entries[name].write(a, name); err != nil {
			return err
		}
	}
	return a.Close()
}

func (e entry) write(a *initramfs.Writer, name string) error {
	switch {
	case e.dir:
		return a.Dir(name, e.perm)
	case e.link != "":
		return a.Symlink(name, e.link)
	case e.file == "":
		return a.File(name, e.perm, int64(len(e.content)), strings.NewReader(e.content))
	}
	f, err := os.Open(e.file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.File(name, e.perm, info.Size(), f)
}
