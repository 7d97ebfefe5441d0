package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/huskvm/husk/boot/diskboot/imagefs"
)

// Folders (§6 and §7 of the specification).
const (
	dirEntry = 32               // bytes
	maxDir   = 65536 * dirEntry // bytes of one folder
	maxDepth = 64               // folders in a path

	attrVolume = 0x08
	attrFolder = 0x10
	attrLong   = 0x0f
	longLast   = 0x40
	longUnits  = 13 // UTF-16 units in an entry
)

// An entry is a name in a folder.
type entry struct {
	name   string
	short  string // 8.3
	folder bool
	first  uint32 // cluster
	size   int64  // bytes
}

// Open opens a file. Case does not matter.
func (f *FS) Open(name string) (*io.SectionReader, error) {
	e, err := f.walk(name)
	if err == nil && e.folder {
		err = fmt.Errorf("%w: it is a folder", ErrKind)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	r, err := f.open(e.first, e.size, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// List gives the names in a folder, sorted.
func (f *FS) List(name string) ([]string, error) {
	infos, err := f.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name())
	}
	slices.Sort(names)
	return names, nil
}

// Stat tells what a path leads to. Files have no permissions there: all may be read.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.walk(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	e.name = path.Base(name)
	return e.info(), nil
}

// Lstat is Stat: there are no links.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.Stat(name) }

// ReadLink always fails.
func (f *FS) ReadLink(name string) (string, error) {
	_, err := f.walk(name)
	if err == nil {
		err = fmt.Errorf("%w: it is not a symbolic link", ErrKind)
	}
	return "", fmt.Errorf("%s: %w", name, err)
}

// ReadDir tells what is in a folder, in the order that it has there.
func (f *FS) ReadDir(name string) ([]fs.FileInfo, error) {
	e, err := f.walk(name)
	if err == nil && !e.folder {
		err = fmt.Errorf("%w: it is not a folder", ErrKind)
	}
	var infos []fs.FileInfo
	if err == nil {
		err = f.entries(e, func(e entry) bool {
			infos = append(infos, e.info())
			return true
		})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return infos, nil
}

func (e entry) info() fs.FileInfo {
	if e.folder {
		return imagefs.Info(e.name, fs.ModeDir|0o555, 0)
	}
	return imagefs.Info(e.name, 0o444, e.size)
}

// walk follows a path from the root. There are no links, and ".." is taken out
// of the path.
func (f *FS) walk(name string) (entry, error) {
	at := []entry{{folder: true, first: f.rootHead}}
	for word := range strings.SplitSeq(name, "/") {
		here := at[len(at)-1]
		switch {
		case word == "" || word == ".":
			continue
		case word == "..":
			at = at[:max(1, len(at)-1)]
			continue
		case !here.folder || len(at) > maxDepth:
			return entry{}, fs.ErrNotExist
		}
		found := false
		err := f.entries(here, func(e entry) bool {
			if strings.EqualFold(e.name, word) || strings.EqualFold(e.short, word) {
				at, found = append(at, e), true
			}
			return !found
		})
		if err != nil {
			return entry{}, err
		}
		if !found {
			return entry{}, fs.ErrNotExist
		}
	}
	return at[len(at)-1], nil
}

// content is a folder's bytes. Only FAT32's root is a file like others.
func (f *FS) content(dir entry) (*io.SectionReader, error) {
	if dir.first == 0 && f.bits < 32 {
		return io.NewSectionReader(f.image, f.root, f.rootSize), nil
	}
	if dir.first == 0 {
		return nil, fmt.Errorf("%w: a folder without clusters", ErrMalformed)
	}
	return f.open(dir.first, -1, maxDir)
}

// entries calls each for every name in a folder, until it returns false.
func (f *FS) entries(dir entry, each func(entry) bool) error {
	r, err := f.content(dir)
	if err != nil {
		return err
	}
	var long longName
	block := make([]byte, 4096)
	for off := int64(0); ; off += int64(len(block)) {
		n, err := r.ReadAt(block, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read a folder: %w", err)
		}
		for p := block[:n]; len(p) >= dirEntry; p = p[dirEntry:] {
			raw := p[:dirEntry]
			switch {
			case raw[0] == 0: // here and after
				return nil
			case raw[0] == 0xe5: // deleted
				long = longName{}
			case raw[11]&0x3f == attrLong:
				long.add(raw)
			case raw[11]&attrVolume != 0, raw[0] == '.':
				long = longName{}
			default:
				e := parse(raw, f.bits)
				if name, ok := long.of(raw[:11]); ok {
					e.name = name
				}
				long = longName{}
				if !each(e) {
					return nil
				}
			}
		}
		if n < len(block) {
			return nil
		}
	}
}

// parse reads an entry with its short name.
func parse(raw []byte, bits int) entry {
	le := binary.LittleEndian
	e := entry{folder: raw[11]&attrFolder != 0, first: uint32(le.Uint16(raw[26:])), size: int64(le.Uint32(raw[28:]))}
	if bits == 32 {
		e.first |= uint32(le.Uint16(raw[20:])) << 16
	}
	base, ext := strings.TrimRight(string(raw[:8]), " "), strings.TrimRight(string(raw[8:11]), " ")
	if raw[0] == 0x05 { // stands for a first byte that would mean "deleted"
		base = "\xe5" + base[1:]
	}
	join := func(base, ext string) string {
		if ext == "" {
			return base
		}
		return base + "." + ext
	}
	e.short = join(base, ext)
	const lowerBase, lowerExt = 0x08, 0x10 // of Windows NT, and of Linux
	if raw[12]&lowerBase != 0 {
		base = strings.ToLower(base)
	}
	if raw[12]&lowerExt != 0 {
		ext = strings.ToLower(ext)
	}
	e.name = join(base, ext)
	return e
}

// A longName is put together from the entries before a short one, last part
// first.
type longName struct {
	units []uint16
	next  byte // the number that the next part must have
	sum   byte
}

func (l *longName) add(raw []byte) {
	number := raw[0] &^ longLast
	if raw[0]&longLast != 0 {
		*l = longName{next: number, sum: raw[13]}
	}
	if number == 0 || number > 20 || number != l.next || raw[13] != l.sum {
		*l = longName{}
		return
	}
	units := make([]uint16, 0, longUnits+len(l.units))
	for _, part := range [][]byte{raw[1:11], raw[14:26], raw[28:32]} {
		for ; len(part) > 0; part = part[2:] {
			units = append(units, binary.LittleEndian.Uint16(part))
		}
	}
	l.units, l.next = append(units, l.units...), number-1
}

// of is the long name that belongs to a short one, which its sum tells.
func (l *longName) of(short []byte) (string, bool) {
	if l.next != 0 || len(l.units) == 0 || sum(short) != l.sum {
		return "", false
	}
	if end := slices.Index(l.units, 0); end >= 0 {
		l.units = l.units[:end]
	}
	return string(utf16.Decode(l.units)), len(l.units) > 0
}

// sum is the specification's ChkSum.
func sum(short []byte) (s byte) {
	for _, c := range short {
		s = s<<7 | s>>1
		s += c
	}
	return s
}
