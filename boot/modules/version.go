package modules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ErrVersion says that a file does not tell which kernel it is.
var ErrVersion = errors.New("the kernel's version is not to be found")

// Offsets in a bzImage (kernel Documentation/arch/x86/boot.rst, "The Real-Mode
// Kernel Header").
const (
	headerMagic   = 0x202 // "HdrS"
	headerVersion = 0x20e // where the version string is, 16 bits, less 0x200
	headerEnd     = 0x210
)

// maxRelease bounds what uname -r prints, in bytes (__NEW_UTS_LEN).
const maxRelease = 64

// Version is the release of a bzImage, as uname -r prints it and as its folder
// under /lib/modules is called. Other files are an ErrVersion.
func Version(image io.ReaderAt) (string, error) {
	header := make([]byte, headerEnd)
	if _, err := image.ReadAt(header, 0); err != nil {
		return "", fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if string(header[headerMagic:headerMagic+4]) != "HdrS" {
		return "", fmt.Errorf("%w: it is not a bzImage", ErrVersion)
	}
	off := int64(binary.LittleEndian.Uint16(header[headerVersion:])) + 0x200
	text := make([]byte, maxRelease+1)
	n, err := image.ReadAt(text, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%w: %w", ErrVersion, err)
	}
	end := bytes.IndexAny(text[:n], " \x00")
	if end <= 0 || strings.ContainsRune(string(text[:end]), '/') {
		return "", fmt.Errorf("%w: at offset %#x stands no version", ErrVersion, off)
	}
	return string(text[:end]), nil
}

// For opens the tree that belongs to a kernel image: beside it where a package
// has been unpacked (../lib/modules, lib/modules), else /lib/modules.
func For(image string) (*Tree, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVersion, err)
	}
	defer f.Close()
	version, err := Version(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	file, err := filepath.EvalSymlinks(image) // build/kernels/*/vmlinuz is a link into boot
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVersion, err)
	}
	dir := filepath.Dir(file)
	var tried []string
	for _, lib := range []string{filepath.Join(dir, "lib"), filepath.Join(dir, "..", "lib"), "/lib", "/usr/lib"} {
		root := filepath.Join(lib, "modules", version)
		if t, err := Open(root); err == nil {
			return t, nil
		}
		tried = append(tried, root)
	}
	return nil, fmt.Errorf("%w: %s is kernel %s; looked in %s", ErrTree, image, version, strings.Join(tried, ", "))
}
