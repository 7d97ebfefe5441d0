// Package guestinit has husk-init, the first process of husk's own guests,
// inside, and packs it into an initramfs.
package guestinit

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/huskvm/husk/boot/initramfs"
	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/internal/guestinit/spec"
)

// ErrNotBuilt says that this husk was built without its husk-init.
var ErrNotBuilt = errors.New("husk was built without its guest's first process")

// bin has the program only where make has built it; a fresh clone builds
// without.
//
//go:embed all:bin
var bin embed.FS

// Binary is the husk-init program, a static ELF file.
func Binary() ([]byte, error) {
	b, err := bin.ReadFile("bin/husk-init")
	if err != nil {
		return nil, fmt.Errorf("%w (husk-init): build it with make", ErrNotBuilt)
	}
	return b, nil
}

// Options are what an initramfs has in it besides husk-init.
type Options struct {
	Program []byte            // husk-init, nil for the Binary that is built in
	Path    string            // what husk-init is called in it, "" for "init"
	Init    spec.Init         // what husk-init does
	Modules []modules.Module  // loaded in this order
	Extra   map[string]string // path in the guest → file on the host, with its mode
}

// Initramfs writes an initramfs with husk-init as its first process.
func Initramfs(w io.Writer, o Options) error {
	program := o.Program
	if program == nil {
		var err error
		if program, err = Binary(); err != nil {
			return err
		}
	}
	init, err := json.Marshal(o.Init)
	if err != nil {
		return err
	}
	a := initramfs.NewWriter(w)
	if o.Init.Guest == nil || o.Init.Guest.Then == "" { // else /dev is another's
		// The kernel opens the console before husk-init has mounted /dev.
		if err := a.Device("dev/console", 0o600|fs.ModeDevice|fs.ModeCharDevice, 5, 1); err != nil {
			return err
		}
	}
	name := o.Path
	if name == "" {
		name = "init"
	}
	if err := add(a, name, 0o755, program); err != nil {
		return err
	}
	if err := add(a, spec.Path, 0o644, init); err != nil {
		return err
	}
	if err := addModules(a, o.Modules, maxModules); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Extra)) {
		if err := addFile(a, name, o.Extra[name]); err != nil {
			return err
		}
	}
	return a.Close()
}

func add(a *initramfs.Writer, name string, perm fs.FileMode, content []byte) error {
	return a.File(name, perm, int64(len(content)), bytes.NewReader(content))
}

// maxModules bounds the modules of an initramfs, in bytes: it is held in memory,
// and they may be a stranger's.
const maxModules = 512 << 20

// addModules packs modules unpacked: not every kernel unpacks them itself. All of
// them have at most so many bytes.
func addModules(a *initramfs.Writer, list []modules.Module, most int) error {
	var order strings.Builder
	size := 0
	for _, m := range list {
		b, err := m.Read()
		if err != nil {
			return err
		}
		if size += len(b); size > most {
			return fmt.Errorf("%s: with it, the modules for the guest have more than %d bytes; take fewer, or a kernel whose modules are stripped", m.File, most)
		}
		name := path.Join(spec.Drivers, m.Name+".ko")
		if err := add(a, name, 0o644, b); err != nil {
			return err
		}
		fmt.Fprintln(&order, name)
	}
	return add(a, spec.Modules, 0o644, []byte(order.String()))
}

func addFile(a *initramfs.Writer, name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return a.File(name, st.Mode().Perm(), st.Size(), f)
}
