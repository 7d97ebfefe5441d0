package rootfs

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
)

// The names of whiteouts (OCI image-spec, layer.md), and what AUFS kept beside them.
const (
	whiteout = ".wh."
	metaFile = ".wh..wh."
	opaque   = ".wh..wh..opq"
)

// How many directories without entries of their own layers may have: so many, and so many
// more for each entry.
const (
	impliedDirs = 1 << 16
	impliedEach = 16
)

// layer reads one layer and puts it above those before it.
//
// A layer is first read into a tree of its own and then merged as overlayfs would merge
// it, because that is how containerd and Docker do it: they unpack each layer into a
// folder of its own, and overlayfs does the rest. One sees it at symbolic links in the
// path of an entry: one of the same layer is followed, inside the root, but one of a
// layer below is not seen, so that an entry a/x above a link a makes a directory a which
// replaces the link.
func (b *builder) layer(open Layer) (err error) {
	r, err := open()
	if err != nil {
		return err
	}
	defer func() {
		if e := r.Close(); err == nil && e != nil {
			err = e
		}
	}()
	t := &tape{r: bufio.NewReaderSize(r, 128<<10)}
	l := &layer{builder: b, root: newDir(), tape: t, tar: tar.NewReader(t)}
	for {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		h, err := l.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return l.unreadable(err)
		}
		l.entries++
		b.stats.Entries++
		if err := l.entry(h); err != nil {
			return fmt.Errorf("%s: %w", printable(h.Name), err)
		}
	}
	if _, err := b.readAll(t.r); err != nil {
		return err
	}
	merge(b.root, l.root)
	return nil
}

// unreadable is why there is no next entry.
func (l *layer) unreadable(err error) error {
	if e := l.ctx.Err(); e != nil {
		return e
	}
	return refuse(fmt.Errorf("after %d entries: %w", l.entries, err))
}

// A layer is one that is being read.
type layer struct {
	*builder
	root    *inode // of this layer alone
	tape    *tape
	tar     *tar.Reader
	entries int

	// Of the entry that is being taken, if it is a sparse file:
	sparse *sparse
	taken  int64 // bytes read from the tape
}

// entry takes one entry of the archive.
func (l *layer) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader { // says nothing of a file; git writes them
		return nil
	}
	names, err := split(h.Name)
	if err != nil {
		return refuse(err)
	}
	if len(names) == 0 {
		return l.rootEntry(h)
	}
	last := len(names) - 1
	for i, name := range names {
		if strings.HasPrefix(name, metaFile) && (i < last || name != opaque) {
			return nil // AUFS's own files, which Docker passes over, too
		}
	}
	dir, err := newWalk(l.root, nil, names[:last]).to(l.impliedDir)
	if err != nil {
		return refuse(err)
	}
	parent, name := dir.layer, names[last]
	if strings.HasPrefix(name, whiteout) {
		return hide(parent, name)
	}
	if err := checkName(name); err != nil {
		return refuse(err)
	}
	if dir.length+len(name) > maxPath {
		return refuse(errTooLong)
	}
	node, err := l.node(h)
	if err != nil {
		return err
	}
	old := parent.dir.children[name]
	if old != nil && old.kind() == typeDir && node.kind() == typeDir {
		old.setAttributes(node)
		return nil
	}
	parent.dir.put(strings.Clone(name), node)
	return nil
}

// impliedDir makes a directory that is in an entry's path but has no entry of its own. Few
// do in an image, and a path has room for two thousand; each would stay in memory.
func (l *layer) impliedDir() (*inode, error) {
	most := impliedDirs + impliedEach*l.stats.Entries
	if l.implied >= most {
		return nil, fmt.Errorf("more than %d directories that have no entries of their own; at most %d for each entry and %d besides are possible",
			most, impliedEach, impliedDirs)
	}
	l.implied++
	return newDir(), nil
}

// rootEntry takes the entry "./", by which a layer says what the root itself is like.
// Docker heeds it, containerd does not.
func (l *layer) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return refuse(errors.New("the root can only be a directory"))
	}
	node, err := l.inode(h, typeDir)
	if err != nil {
		return refuse(err)
	}
	l.root.setAttributes(node)
	return nil
}

// node makes the inode of an entry, and reads its content.
func (l *layer) node(h *tar.Header) (*inode, error) {
	if h.Typeflag == tar.TypeLink {
		return l.hardLink(h.Linkname)
	}
	kind, ok := kinds[h.Typeflag]
	if !ok {
		return nil, refuse(fmt.Errorf("an entry of the unknown type %q", h.Typeflag))
	}
	node, err := l.inode(h, kind)
	if err != nil {
		return nil, refuse(err)
	}
	if kind != typeFile {
		return node, nil
	}
	node.size = h.Size
	if l.sparse != nil {
		l.taken, err = l.out.sparse(l.ctx, l.tape, node, l.sparse.fragments)
	} else {
		err = l.out.content(l.ctx, l.tar, node)
	}
	if err != nil {
		return nil, err
	}
	if node.size > int64(len(node.tail)) {
		l.data = append(l.data, node)
	}
	return node, nil
}

// hardLink gives the inode that another name has already, in this layer or, if it is not
// there, in one below. The link's own attributes are those of that file when it was
// archived; they say nothing new.
func (l *layer) hardLink(target string) (*inode, error) {
	names, err := split(target)
	if err != nil {
		return nil, refuse(fmt.Errorf("hard link to %s: %w", printable(target), err))
	}
	node, err := find(l.root, l.builder.root, names)
	if err != nil {
		return nil, refuse(fmt.Errorf("hard link to %s: %w", printable(target), err))
	}
	if node.kind() == typeDir {
		return nil, refuse(fmt.Errorf("hard link to %s, which is a directory", printable(target)))
	}
	return node, nil
}

// inode makes an inode with what a header says, but for a file's content.
func (l *layer) inode(h *tar.Header, kind uint16) (*inode, error) {
	node := &inode{mode: kind | uint16(h.Mode&permission)}
	for _, id := range []struct {
		what string
		from int
		to   *uint32
	}{{"user", h.Uid, &node.uid}, {"group", h.Gid, &node.gid}} {
		// The highest number is (uid_t)-1, which chown(2) takes for "no change".
		if id.from < 0 || id.from >= math.MaxUint32 {
			return nil, fmt.Errorf("owned by %s %d; Linux has 0 to %d", id.what, id.from, uint32(math.MaxUint32-1))
		}
		*id.to = uint32(id.from)
	}
	if !h.ModTime.IsZero() {
		node.seconds, node.nanos = h.ModTime.Unix(), uint32(h.ModTime.Nanosecond())
	}
	var err error
	if node.xattrs, err = l.xattrs(h, kind); err != nil {
		return nil, err
	}
	switch kind {
	case typeDir:
		node.dir = &directory{}
	case typeLink:
		if h.Linkname == "" || len(h.Linkname) > maxPath || strings.Contains(h.Linkname, "\x00") {
			return nil, fmt.Errorf("a link's target has 1 to %d bytes and no NUL, this one has %d", maxPath, len(h.Linkname))
		}
		node.tail, node.size = []byte(h.Linkname), int64(len(h.Linkname))
	case typeChar, typeBlock:
		if node.rdev, err = deviceNumber(h.Devmajor, h.Devminor); err != nil {
			return nil, err
		}
	}
	return node, nil
}

// deviceNumber is new_encode_dev of the kernel's include/linux/kdev_t.h.
func deviceNumber(major, minor int64) (uint32, error) {
	if major < 0 || major >= 1<<12 || minor < 0 || minor >= 1<<20 {
		return 0, fmt.Errorf("device %d,%d; Linux has numbers up to 4095,1048575", major, minor)
	}
	return uint32(minor&0xff | major<<8 | minor&^0xff<<12), nil
}

// refuse marks an error as a fault of the layer.
func refuse(err error) error { return fmt.Errorf("%w: %w", ErrLayer, err) }

// printable is a name for an error's text.
func printable(name string) string {
	if len(name) > 200 {
		name = name[:100] + "…" + name[len(name)-100:]
	}
	if quoted := fmt.Sprintf("%q", name); quoted != `"`+name+`"` || path.Clean(name) == "." {
		return quoted
	}
	return name
}
