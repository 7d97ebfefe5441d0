package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Made is the time of every file in a layer, so that the same files are the same
// layer. A test may look for it.
var Made = time.Date(2024, time.February, 29, 12, 34, 56, 0, time.UTC)

// A tree is a layer as it is written: a tar archive. The first error stays and is
// layer's.
type tree struct {
	buf bytes.Buffer
	tar *tar.Writer
	err error
}

func newTree() *tree {
	t := &tree{}
	t.tar = tar.NewWriter(&t.buf)
	return t
}

// An option changes a file's header.
type option func(*tar.Header)

func owner(uid, gid int) option {
	return func(h *tar.Header) { h.Uid, h.Gid = uid, gid }
}

// xattr gives an extended attribute, as GNU tar, Docker and OCI layers have it.
func xattr(name, value string) option {
	return func(h *tar.Header) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
}

// rawName has the name written as it is, as GNU tar does, also one that is no UTF-8.
func rawName(h *tar.Header) { h.Format = tar.FormatGNU }

func (t *tree) add(h tar.Header, data string, options ...option) {
	if t.err != nil {
		return
	}
	h.ModTime, h.Size = Made, int64(len(data))
	for _, o := range options {
		o(&h)
	}
	if t.err = t.tar.WriteHeader(&h); t.err == nil {
		_, t.err = io.WriteString(t.tar, data)
	}
}

func (t *tree) dir(name string, mode int64, options ...option) {
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, "", options...)
}

func (t *tree) file(name string, mode int64, data string, options ...option) {
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, data, options...)
}

func (t *tree) symlink(name, target string, options ...option) {
	t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, "", options...)
}

// link makes a hard link; target is a path in the archive, or in a layer below.
func (t *tree) link(name, target string) {
	t.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, "")
}

// device makes a character device ('c'), a block device ('b') or a FIFO ('p').
func (t *tree) device(name string, kind byte, mode, major, minor int64) {
	types := map[byte]byte{'c': tar.TypeChar, 'b': tar.TypeBlock, 'p': tar.TypeFifo}
	t.add(tar.Header{Typeflag: types[kind], Name: name, Mode: mode, Devmajor: major, Devminor: minor}, "")
}

// remove is a whiteout: the file of the layers below is not there any more.
func (t *tree) remove(name string) {
	t.file(path.Join(path.Dir(name), ".wh."+path.Base(name)), 0, "")
}

// opaque hides what the layers below have in a folder.
func (t *tree) opaque(dir string) { t.file(dir+"/.wh..wh..opq", 0, "") }

// sparse makes a file of a size with data at some offsets, as GNU tar's PAX format 1.0
// has it (tar's manual, "Storing Sparse Files"), which archive/tar reads but does not
// write.
func (t *tree) sparse(name string, size int64, offsets []int64, data string) {
	if t.err != nil {
		return
	}
	var sparse, content strings.Builder
	fmt.Fprintf(&sparse, "%d\n", len(offsets)+1)
	for _, off := range offsets {
		fmt.Fprintf(&sparse, "%d\n%d\n", off, len(data))
		content.WriteString(data)
	}
	fmt.Fprintf(&sparse, "%d\n0\n", size) // the end
	body := padded(sparse.String()) + content.String()

	var records string
	for _, r := range [][2]string{
		{"GNU.sparse.major", "1"},
		{"GNU.sparse.minor", "0"},
		{"GNU.sparse.name", name},
		{"GNU.sparse.realsize", strconv.FormatInt(size, 10)},
	} {
		records += paxRecord(r[0], r[1])
	}
	if t.err = t.tar.Flush(); t.err != nil {
		return
	}
	t.buf.Write(rawHeader("PaxHeaders.0/"+path.Base(name), 'x', len(records)))
	t.buf.WriteString(padded(records))
	t.buf.Write(rawHeader("GNUSparseFile.0/"+path.Base(name), '0', len(body)))
	t.buf.WriteString(padded(body))
}

const blockSize = 512 // of a tar archive

func padded(s string) string {
	return s + strings.Repeat("\x00", (blockSize-len(s)%blockSize)%blockSize)
}

// paxRecord is "LENGTH KEY=VALUE\n", where the length counts its own digits.
func paxRecord(key, value string) string {
	rest := len(" =\n") + len(key) + len(value)
	length := rest
	for {
		if next := rest + len(strconv.Itoa(length)); next != length {
			length = next
			continue
		}
		return fmt.Sprintf("%d %s=%s\n", length, key, value)
	}
}

// rawHeader is a USTAR header.
func rawHeader(name string, typeflag byte, size int) []byte {
	b := make([]byte, blockSize)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00%011o\x00", size, Made.Unix()))
	copy(b[148:], "        ")
	b[156] = typeflag
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// layer is the archive as a layer, compressed.
func (t *tree) layer(with compression.Compression) (v1.Layer, error) {
	if err := t.tar.Close(); t.err == nil {
		t.err = err
	}
	if t.err != nil {
		return nil, t.err
	}
	media := types.OCILayer
	switch with {
	case compression.ZStd:
		media = types.OCILayerZStd
	case compression.None:
		return static.NewLayer(t.buf.Bytes(), types.OCIUncompressedLayer), nil
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(t.buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompression(with), tarball.WithMediaType(media), tarball.WithCompressedCaching)
}
