package rootfs

import "archive/tar"

// The file types of a mode word (stat(2), S_IFMT).
const (
	typeMask   = 0o170000
	typeFifo   = 0o010000 // S_IFIFO
	typeChar   = 0o020000 // S_IFCHR
	typeDir    = 0o040000 // S_IFDIR
	typeBlock  = 0o060000 // S_IFBLK
	typeFile   = 0o100000 // S_IFREG
	typeLink   = 0o120000 // S_IFLNK
	permission = 0o7777   // with setuid, setgid and the sticky bit
)

// An inode is one file of any type, whatever names it has. Those of a layer become
// those of the image.
type inode struct {
	mode     uint16 // type and permissions
	uid, gid uint32
	seconds  int64 // mtime
	nanos    uint32
	rdev     uint32
	size     int64  // bytes of content: a file's, a link's target, a directory's entries
	block    uint32 // where the content begins, but for its tail
	tail     []byte // the content's last bytes, if they stand behind the inode
	xattrs   []byte // as EROFS has them
	dir      *directory

	links uint32 // names; a directory's ".." count, as everywhere
	nid   uint64 // number in the image, assigned at the end
}

// A directory is what an inode of a directory has besides.
type directory struct {
	children map[string]*inode // nil if there are none

	// Of a layer, for what is below it:
	hides   map[string]bool // names that whiteouts take away
	opaque  bool            // all of what is below is taken away
	implied bool            // no entry of its own: the attributes are those from below

	sorted []dirent // children, "." and "..", in the order of the disk; set at the end
}

// newDir makes a directory as it is where no layer says what it is like.
func newDir() *inode {
	return &inode{mode: typeDir | 0o755, dir: &directory{implied: true}}
}

// put makes a child of an inode, in place of the one that has the name.
func (d *directory) put(name string, node *inode) {
	if d.children == nil {
		d.children = map[string]*inode{}
	}
	d.children[name] = node
}

func (i *inode) kind() uint16 { return i.mode & typeMask }

// setAttributes gives a directory the attributes of another.
func (i *inode) setAttributes(from *inode) {
	i.mode, i.uid, i.gid = from.mode, from.uid, from.gid
	i.seconds, i.nanos = from.seconds, from.nanos
	i.xattrs = from.xattrs
	i.dir.implied = from.dir.implied
}

// kinds are the types of an archive's entries that become inodes.
var kinds = map[byte]uint16{
	tar.TypeReg:       typeFile,
	tar.TypeCont:      typeFile, // contiguous: no Linux file system knows the difference
	tar.TypeGNUSparse: typeFile,
	tar.TypeSymlink:   typeLink,
	tar.TypeChar:      typeChar,
	tar.TypeBlock:     typeBlock,
	tar.TypeDir:       typeDir,
	tar.TypeFifo:      typeFifo,
}
