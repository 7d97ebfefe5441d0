package share

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// rootAlias is the root's number on the way through the library, which treats the
// usual one in a way of its own (see request.go). No guest is given it.
const rootAlias = 1 << 63

// A key tells inodes of the host apart, as long as one has a descriptor open.
type key struct {
	major, minor uint32
	ino          uint64
	mount        uint64 // the same folder mounted twice is two
}

func keyOf(st *unix.Statx_t) key {
	return key{st.Dev_major, st.Dev_minor, st.Ino, st.Mnt_id}
}

// An inode is a file of the host that the guest knows.
type inode struct {
	id   uint64
	fd   int // O_PATH; -1 is the folder that stands around a file that is shared alone
	kind uint32
	key  key

	known uint64 // how often the guest was told of it; the table's lock guards it
	held  held
}

// A handle is a file or folder that the guest has open.
type handle struct {
	id    uint64
	inode *inode // held: the guest may forget it before it closes this
	fd    int    // -1 as in inode
	kind  uint32

	mu   sync.Mutex // of a folder: a reader at a time
	next int64      // the place in it where reading goes on
	held held
}

// held counts who uses a descriptor: the table, handles, and requests under way. The last
// one closes it.
type held struct{ n atomic.Int64 }

// A table has all inodes and handles, by the numbers that the guest was told.
type table struct {
	log  *slog.Logger
	root *inode
	file *root // what is shared, if it is a file

	max  int64
	open atomic.Int64 // descriptors
	said atomic.Int64 // when it was last logged that there are too many, unix ns

	mu      sync.RWMutex
	last    uint64 // the latest number: none is used twice
	inodes  map[uint64]*inode
	byKey   map[key]*inode
	handles map[uint64]*handle
}

func newTable(maxOpen int, r root, log *slog.Logger) *table {
	t := &table{log: log, max: int64(maxOpen), last: fuse.FUSE_ROOT_ID}
	t.root = &inode{id: fuse.FUSE_ROOT_ID, fd: r.fd, kind: unix.S_IFDIR, key: keyOf(&r.stat)}
	if r.file {
		t.root.fd, t.root.key, t.file = -1, key{}, &r
	}
	t.root.held.n.Store(1)
	t.open.Store(1)
	t.reset()
	return t
}

// reset empties the maps. The lock is held, or nobody else has the table.
func (t *table) reset() {
	t.inodes = map[uint64]*inode{fuse.FUSE_ROOT_ID: t.root, rootAlias: t.root}
	t.byKey = map[key]*inode{}
	if t.file == nil {
		t.byKey[t.root.key] = t.root
	}
	t.handles = map[uint64]*handle{}
}

// clear drops all but the root.
func (t *table) clear() {
	t.mu.Lock()
	inodes, handles := t.inodes, t.handles
	t.reset()
	t.mu.Unlock()
	for _, h := range handles {
		t.releaseHandle(h)
	}
	for _, in := range inodes {
		if in != t.root {
			t.release(in)
		}
	}
}

// close closes the root, after clear.
func (t *table) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.inodes)
	fd := t.root.fd
	if t.file != nil {
		fd = t.file.fd
	}
	return unix.Close(fd)
}

// inode returns the inode of a number, which is not closed before release.
func (t *table) inode(id uint64) (*inode, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	in := t.inodes[id]
	if in == nil {
		return nil, unix.ESTALE
	}
	in.held.n.Add(1)
	return in, nil
}

func (t *table) release(in *inode) {
	if in.held.n.Add(-1) == 0 {
		_ = unix.Close(in.fd)
		t.free()
	}
}

// handle returns the handle of a number, which is not closed before releaseHandle.
func (t *table) handle(id uint64, kind uint32) (*handle, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h := t.handles[id]
	if h == nil || h.kind != kind {
		return nil, unix.EBADF
	}
	h.held.n.Add(1)
	return h, nil
}

func (t *table) releaseHandle(h *handle) {
	if h.held.n.Add(-1) == 0 {
		if h.fd >= 0 {
			_ = unix.Close(h.fd)
		}
		t.free()
		t.release(h.inode)
	}
}

// know takes the descriptor of a file that the guest is being told of, and returns its
// inode: the one that there is, if the guest knows it. It is held, and counts as told
// once more.
func (t *table) know(fd int, st *unix.Statx_t) *inode {
	k := keyOf(st)
	t.mu.Lock()
	in := t.byKey[k]
	if in != nil {
		in.known++
		in.held.n.Add(1)
		t.mu.Unlock()
		_ = unix.Close(fd)
		t.free()
		return in
	}
	t.last++
	in = &inode{id: t.last, fd: fd, kind: uint32(st.Mode) & unix.S_IFMT, key: k, known: 1}
	in.held.n.Store(2)
	t.inodes[in.id], t.byKey[k] = in, in
	t.mu.Unlock()
	return in
}

// forget takes back n times that the guest was told of an inode.
func (t *table) forget(id, n uint64) {
	t.mu.Lock()
	in := t.inodes[id]
	if in == nil || in == t.root {
		t.mu.Unlock()
		return
	}
	in.known -= min(n, in.known)
	gone := in.known == 0
	if gone {
		delete(t.inodes, id)
		delete(t.byKey, in.key)
	}
	t.mu.Unlock()
	if gone {
		t.release(in)
	}
}

// opened takes the descriptor of a file that the guest has opened, for which there was
// room (reserve). The caller holds the inode.
func (t *table) opened(in *inode, fd int) uint64 {
	h := &handle{inode: in, fd: fd, kind: in.kind}
	h.held.n.Store(1)
	in.held.n.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	h.id = t.last
	t.handles[h.id] = h
	return h.id
}

// closed takes a handle from the guest.
func (t *table) closed(id uint64, kind uint32) {
	t.mu.Lock()
	h := t.handles[id]
	if h == nil || h.kind != kind {
		t.mu.Unlock()
		return
	}
	delete(t.handles, id)
	t.mu.Unlock()
	t.releaseHandle(h)
}

// reserve makes room for one more descriptor.
func (t *table) reserve() error {
	if t.open.Add(1) > t.max {
		t.free()
		t.full("the share's bound", nil)
		return unix.ENFILE
	}
	return nil
}

func (t *table) free() { t.open.Add(-1) }

// fullEvery is how often it is logged, at most, that there are too many descriptors.
const fullEvery = 10 * time.Second

// full says that there are too many descriptors.
func (t *table) full(bound string, err error) {
	now, said := time.Now().UnixNano(), t.said.Load()
	if said != 0 && now-said < int64(fullEvery) || !t.said.CompareAndSwap(said, now) {
		return
	}
	t.log.Warn("share: too many files are known to the guest or open in it; it gets ENFILE for more. Raise the limit of open files (ulimit -n)",
		"bound", bound, "open", t.open.Load(), "most", t.max, "err", err)
}

// status is what the guest is told of an error.
func (t *table) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if !errors.As(err, &errno) || errno <= 0 || errno >= maxErrno {
		return fuse.EIO
	}
	if errno == unix.EMFILE || errno == unix.ENFILE {
		t.full("the host's", err)
		return fuse.Status(unix.ENFILE)
	}
	return fuse.Status(errno)
}

// maxErrno bounds what a guest takes for an error (fs/fuse/dev.c).
const maxErrno = 512
