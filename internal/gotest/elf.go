package gotest

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrBinary is a file that no guest could run.
var ErrBinary = errors.New("not a program for a guest")

// loaderCache is where glibc's loader looks up the libraries of /etc/ld.so.conf.
const loaderCache = "/etc/ld.so.cache"

// libraryFolders are where loaders look for libraries besides, by distribution.
var libraryFolders = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib",
}

// Needs are the files that a program needs to start: none where it is linked
// statically, else the loader, its cache and the libraries, each where the loader
// looks for it. env is the program's environment. Libraries that a program opens
// later, by name, are not seen.
func Needs(program string, env []string) ([]string, error) {
	n := needs{seen: map[string]bool{}}
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "LD_LIBRARY_PATH="); ok {
			n.given = filepath.SplitList(v)
		}
	}
	if err := n.read(program); err != nil {
		return nil, err
	}
	if len(n.files) > 0 {
		if _, err := os.Stat(loaderCache); err == nil {
			n.files = append(n.files, loaderCache)
		}
	}
	slices.Sort(n.files)
	return n.files, nil
}

type needs struct {
	given []string        // LD_LIBRARY_PATH
	seen  map[string]bool // names: a loader takes no second library of a name
	files []string
}

func (n *needs) add(file string) error {
	if n.seen[filepath.Base(file)] {
		return nil
	}
	n.seen[filepath.Base(file)] = true
	n.files = append(n.files, file)
	return n.read(file)
}

// read adds what the ELF file at path names.
func (n *needs) read(path string) error {
	f, err := elf.Open(path)
	if format := new(elf.FormatError); errors.As(err, &format) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s is no ELF file", ErrBinary, path)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBinary, err)
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return fmt.Errorf("%w: %s is for %v, guests are x86-64; set GOARCH=amd64", ErrBinary, path, f.Machine)
	}
	if interpreter, ok := interpreterOf(f); ok {
		if _, err := os.Stat(interpreter); err != nil {
			return fmt.Errorf("%w: %s is linked dynamically and its loader is missing: %w; CGO_ENABLED=0 makes it static", ErrBinary, path, err)
		}
		if err := n.add(interpreter); err != nil {
			return err
		}
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil // no dynamic section
	}
	folders := slices.Concat(n.given, runPaths(f, filepath.Dir(path)), libraryFolders, configuredFolders(loaderConfig))
	for _, name := range names {
		library, err := findLibrary(name, folders)
		if err != nil {
			return fmt.Errorf("%w: %s needs the library %s, which is in none of the loader's folders here; CGO_ENABLED=0 makes it static", ErrBinary, path, name)
		}
		if err := n.add(library); err != nil {
			return err
		}
	}
	return nil
}

// interpreterOf is the loader that the program names (ELF, PT_INTERP).
func interpreterOf(f *elf.File) (string, bool) {
	const longest = 4096 // PATH_MAX
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < longest {
			b, err := io.ReadAll(p.Open())
			return strings.TrimRight(string(b), "\x00"), err == nil
		}
	}
	return "", false
}

// runPaths are the folders that the file itself names; $ORIGIN is its own.
func runPaths(f *elf.File, origin string) []string {
	var folders []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		values, _ := f.DynString(tag)
		for _, v := range values {
			v = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(v)
			folders = append(folders, filepath.SplitList(v)...)
		}
	}
	return folders
}

func findLibrary(name string, folders []string) (string, error) {
	if strings.Contains(name, "/") {
		folders = []string{""}
	}
	for _, dir := range folders {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && !foreign(path) {
			return path, nil
		}
	}
	return "", fs.ErrNotExist
}

// foreign tells of a library for another kind of processor, which a loader passes over
// (ld.so(8)): a host may have those of i386 in the same folders.
func foreign(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false // that is said when it is read
	}
	defer f.Close()
	return f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64
}

// loaderConfig names further folders (ldconfig(8)).
const loaderConfig = "/etc/ld.so.conf"

// configuredFolders are those that a configuration names, one a line, and those that
// the files do which it includes.
func configuredFolders(file string) []string { return includedFolders(file, map[string]bool{}) }

// includedFolders are those of a file that is none of seen, which may include one another.
func includedFolders(file string, seen map[string]bool) []string {
	b, err := os.ReadFile(file)
	if err != nil || seen[file] {
		return nil
	}
	seen[file] = true
	var folders []string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		pattern, includes := strings.CutPrefix(line, "include ")
		switch {
		case includes:
			pattern = strings.TrimSpace(pattern)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(file), pattern)
			}
			files, _ := filepath.Glob(pattern)
			for _, other := range files {
				folders = append(folders, includedFolders(other, seen)...)
			}
		case filepath.IsAbs(line):
			folders = append(folders, line)
		}
	}
	return folders
}
