package modules

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// Version is the release of a kernel, as uname -r prints it and as its folder
// under /lib/modules is called: of a bzImage by its header, of an ELF vmlinux by
// the line that it prints first. Other files are an ErrVersion.
func Version(image io.ReaderAt) (string, error) {
	header := make([]byte, headerEnd)
	if _, err := image.ReadAt(header, 0); err != nil {
		return "", fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if string(header[:len(elf.ELFMAG)]) == elf.ELFMAG {
		return bannerVersion(image)
	}
	if string(header[headerMagic:headerMagic+4]) != "HdrS" {
		return "", fmt.Errorf("%w: it is neither a bzImage nor an ELF file", ErrVersion)
	}
	off := int64(binary.LittleEndian.Uint16(header[headerVersion:])) + 0x200
	text := make([]byte, maxRelease+1)
	n, err := image.ReadAt(text, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if r := release(text[:n]); r != "" {
		return r, nil
	}
	return "", fmt.Errorf("%w: at offset %#x stands no version", ErrVersion, off)
}

// release cuts a release out of what begins with it, "" if nothing does. It must
// be good for the name of a folder.
func release(text []byte) string {
	end := bytes.IndexAny(text, " \x00")
	if end <= 0 || end > maxRelease {
		return ""
	}
	r := string(text[:end])
	if strings.Contains(r, "/") || r == "." || r == ".." || !plain(r) {
		return ""
	}
	return r
}

// maxBanner is how far an ELF file is read for its banner, in bytes: debug
// information, which makes such files large, comes after it, and a file that is
// mostly a hole may have any size.
const maxBanner = 256 << 20

// banner begins the first line that a kernel prints (kernel init/version.c,
// linux_banner); the release follows.
const banner = "Linux version "

// bannerVersion looks for the banner.
func bannerVersion(image io.ReaderAt) (string, error) {
	const most = len(banner) + maxRelease + 1
	buf := make([]byte, 1<<20)
	for off := int64(0); off < maxBanner; off += int64(len(buf) - most) { // one that a piece cuts is whole in the next
		n, err := image.ReadAt(buf, off)
		for rest := buf[:n]; ; {
			at := bytes.Index(rest, []byte(banner))
			if at < 0 {
				break
			}
			rest = rest[at+len(banner):]
			// The same words begin formats for printf, too.
			if r := release(rest[:min(len(rest), maxRelease+1)]); r != "" && '0' <= r[0] && r[0] <= '9' {
				return r, nil
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrVersion, err)
		}
	}
	return "", fmt.Errorf("%w: the ELF file has no %q in its first %d MiB", ErrVersion, banner, maxBanner>>20)
}

// For opens the tree that belongs to the kernel image of that file. dir is where it is:
// the folder that has "kernel" and modules.builtin in it, one that has that as
// VERSION, such as /lib/modules, or the root that lib/modules is in. When dir is "",
// it is beside the image where a package has been unpacked (../lib/modules,
// lib/modules), else in /lib/modules.
func For(image, dir string) (*Tree, error) {
	if dir != "" {
		if ok, _ := IsTree(os.DirFS(dir)); ok {
			return Open(dir)
		}
	}
	f, err := os.Open(image)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVersion, err)
	}
	defer f.Close()
	version, err := Version(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	places := []string{dir, filepath.Join(dir, "lib/modules")}
	if dir == "" {
		file, err := filepath.EvalSymlinks(image) // build/kernels/*/vmlinuz is a link into boot
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrVersion, err)
		}
		beside := filepath.Dir(file)
		places = []string{
			filepath.Join(beside, "lib/modules"), filepath.Join(beside, "../lib/modules"), "/lib/modules", "/usr/lib/modules",
		}
	}
	var tried []string
	for _, place := range places {
		root := filepath.Join(place, version)
		t, err := Open(root)
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		tried = append(tried, root)
	}
	return nil, fmt.Errorf("%w: %s is kernel %s; looked in %s", ErrTree, image, version, strings.Join(tried, ", "))
}
