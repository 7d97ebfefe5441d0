package rootfs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// archive/tar reads a sparse file's holes as zeros and does not tell where they are, so a
// kilobyte of archive could keep it busy for years. But it checks the map of what is
// there; and it can be had twice, because what it has read passes through a tape. (GNU
// tar manual, "Storing Sparse Files"; the old form is in "Basic Tar Format".)

// tapeLength bounds what is recorded: archive/tar takes at most 1 MiB for each of a long
// name, a long link, the PAX records and a sparse file's map.
const tapeLength = 5 << 20

// A tape passes an archive to archive/tar.
type tape struct {
	r        io.Reader
	position int64  // in the archive
	record   []byte // what has been read since recording began
	on       bool
	repeat   int64 // bytes that are to be given out, though somebody has had them
}

func (t *tape) Read(p []byte) (int, error) {
	if t.repeat > 0 {
		n := int(min(int64(len(p)), t.repeat)) // archive/tar drops them, whatever they are
		t.repeat -= int64(n)
		return n, nil
	}
	n, err := t.r.Read(p)
	t.position += int64(n)
	if t.on {
		t.record = append(t.record, p[:min(n, tapeLength-len(t.record))]...)
	}
	return n, err
}

// A fragment is a part of a sparse file that has content.
type fragment struct{ offset, length int64 }

// A sparse is the content of a sparse file, in the archive.
type sparse struct {
	fragments []fragment
	length    int64 // in the archive; 0 behind its end
}

// next goes to the next entry; l.sparse is set if that is a sparse file.
func (l *layer) next() (*tar.Header, error) {
	if err := l.skip(); err != nil {
		return nil, err
	}
	start := l.tape.position
	l.tape.record, l.tape.on = l.tape.record[:0], true
	h, err := l.tar.Next()
	l.tape.on = false
	if err != nil {
		return nil, err
	}
	if l.tape.repeat > 0 {
		return nil, errors.New("a sparse file is shorter than it says")
	}
	if l.sparse, err = sparseMap(h, l.tape.record, int(-start&511)); err != nil {
		return nil, fmt.Errorf("%s: sparse file: %w", printable(h.Name), err)
	}
	return h, nil
}

// skip leaves what an entry's taker has left of its content.
func (l *layer) skip() error {
	if l.sparse == nil {
		_, err := l.readAll(l.tar)
		return err
	}
	length := l.sparse.length
	rest := &io.LimitedReader{R: l.tape, N: length - l.taken}
	if _, err := l.readAll(rest); err != nil {
		return err
	}
	if rest.N > 0 {
		return io.ErrUnexpectedEOF
	}
	l.tape.repeat = length
	l.sparse, l.taken = nil, 0
	return nil
}

// readAll reads what is left of r for nothing.
func (b *builder) readAll(r io.Reader) (int64, error) {
	for n := int64(0); ; {
		k, err := io.CopyN(io.Discard, r, 1<<20)
		n += k
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err == nil {
			err = b.ctx.Err()
		}
		if err != nil {
			return n, err
		}
	}
}

// sparseMap finds the map of a sparse file in the headers that were read for its entry, or
// gives nil for any other. archive/tar has checked the map already. pad is how much
// of the record belongs to the entry before.
func sparseMap(h *tar.Header, record []byte, pad int) (*sparse, error) {
	form := sparseForm(h)
	if form == notSparse {
		return nil, nil
	}
	if len(record) >= tapeLength {
		return nil, errors.New("its headers are too long")
	}
	header, size, rest := lastHeader(record[min(pad, len(record)):])
	if header == nil {
		return nil, tar.ErrHeader
	}
	if s := h.PAXRecords["size"]; s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, tar.ErrHeader
		}
		size = n
	}
	s := &sparse{length: size}
	var err error
	switch form {
	case sparseOld:
		s.fragments, err = oldMap(header, rest)
	case sparsePAX:
		s.fragments, err = textMap(strings.Split(h.PAXRecords["GNU.sparse.map"], ","))
	case sparseInside:
		// The map is lines of numbers in front of the content: first how many.
		lines := strings.Split(string(rest), "\n")
		n, e := strconv.Atoi(lines[0])
		if e != nil || n < 0 || n > (len(lines)-1)/2 {
			return nil, tar.ErrHeader
		}
		s.length -= int64(len(rest))
		s.fragments, err = textMap(lines[1 : 1+2*n])
	}
	if err != nil {
		return nil, err
	}
	var sum int64
	for _, f := range s.fragments {
		sum += f.length
	}
	if sum > s.length {
		return nil, fmt.Errorf("%d bytes in the archive, and a map for %d", s.length, sum)
	}
	return s, nil
}

// The forms of maps.
const (
	notSparse    = iota
	sparseOld    // binary, in the header and blocks behind it
	sparsePAX    // versions 0.0 and 0.1: in the PAX records
	sparseInside // version 1.0: in front of the content
)

// sparseForm tells as archive/tar does how a file's map is written.
func sparseForm(h *tar.Header) int {
	if h.Typeflag == tar.TypeGNUSparse {
		return sparseOld
	}
	switch version := h.PAXRecords["GNU.sparse.major"] + "." + h.PAXRecords["GNU.sparse.minor"]; {
	case version == "0.0" || version == "0.1":
		return sparsePAX
	case version == "1.0":
		return sparseInside
	case version == "." && h.PAXRecords["GNU.sparse.map"] != "":
		return sparsePAX
	}
	return notSparse
}

// lastHeader finds a file's own header behind those with its long names and PAX records,
// the size in it, and what follows.
func lastHeader(p []byte) (header []byte, size int64, rest []byte) {
	for len(p) >= 512 {
		header, p = p[:512], p[512:]
		size := number(header[124:136])
		if !strings.ContainsRune("xLK", rune(header[156])) {
			return header, size, p
		}
		if size < 0 || size > int64(len(p)) {
			break
		}
		p = p[min(int64(len(p)), alignUp(size, 512)):]
	}
	return nil, 0, nil
}

// oldMap reads the map of the old form: 4 entries in the header, then 21 in each block.
func oldMap(header, rest []byte) ([]fragment, error) {
	var fragments []fragment
	entries, more := header[386:482], header[482]
	for {
		for e := entries; len(e) >= 24 && e[0] != 0; e = e[24:] {
			fragments = append(fragments, fragment{number(e[:12]), number(e[12:24])})
		}
		if more == 0 {
			return fragments, nil
		}
		if len(rest) < 512 {
			return nil, tar.ErrHeader
		}
		entries, more, rest = rest[:504], rest[504], rest[512:]
	}
}

// textMap reads numbers by pairs.
func textMap(words []string) ([]fragment, error) {
	if len(words) == 1 && words[0] == "" {
		return nil, nil
	}
	fragments := make([]fragment, 0, len(words)/2)
	for ; len(words) >= 2; words = words[2:] {
		offset, err1 := strconv.ParseInt(words[0], 10, 64)
		length, err2 := strconv.ParseInt(words[1], 10, 64)
		if err1 != nil || err2 != nil {
			return nil, tar.ErrHeader
		}
		fragments = append(fragments, fragment{offset, length})
	}
	return fragments, nil
}

// number reads a field of a header: octal digits or, if the first bit is set, a binary
// number. -1 is none.
func number(p []byte) int64 {
	if p[0]&0x80 != 0 {
		n := int64(p[0] & 0x7f)
		for _, b := range p[1:] {
			if n >= 1<<55 {
				return -1
			}
			n = n<<8 | int64(b)
		}
		return n
	}
	digits, _, _ := strings.Cut(strings.Trim(string(p), " \x00"), "\x00")
	if digits == "" {
		return 0
	}
	n, err := strconv.ParseInt(digits, 8, 64)
	if err != nil {
		return -1
	}
	return n
}
