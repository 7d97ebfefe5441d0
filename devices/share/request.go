package share

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/iovec"
)

// An opcode says what a request asks for (enum fuse_opcode).
type opcode uint32

// The opcodes. Those left out are not served.
const (
	opLookup        opcode = 1
	opForget        opcode = 2
	opGetattr       opcode = 3
	opSetattr       opcode = 4
	opReadlink      opcode = 5
	opSymlink       opcode = 6
	opMknod         opcode = 8
	opMkdir         opcode = 9
	opUnlink        opcode = 10
	opRmdir         opcode = 11
	opRename        opcode = 12
	opLink          opcode = 13
	opOpen          opcode = 14
	opRead          opcode = 15
	opWrite         opcode = 16
	opStatfs        opcode = 17
	opRelease       opcode = 18
	opFsync         opcode = 20
	opSetxattr      opcode = 21
	opGetxattr      opcode = 22
	opListxattr     opcode = 23
	opRemovexattr   opcode = 24
	opInit          opcode = 26
	opOpendir       opcode = 27
	opReaddir       opcode = 28
	opReleasedir    opcode = 29
	opFsyncdir      opcode = 30
	opCreate        opcode = 35
	opDestroy       opcode = 38
	opBatchForget   opcode = 42
	opFallocate     opcode = 43
	opReaddirplus   opcode = 44
	opRename2       opcode = 45
	opLseek         opcode = 46
	opCopyFileRange opcode = 47
)

const (
	headerSize = int(unsafe.Sizeof(fuse.InHeader{}))
	replySize  = int(unsafe.Sizeof(fuse.OutHeader{}))
	// longestHead is the longest of the structures at the front of requests.
	longestHead = 128
	// mostXattr is the longest value, or list, of extended attributes (XATTR_SIZE_MAX).
	mostXattr = 64 << 10
	// mostForgotten bounds the inodes in one BATCH_FORGET; Linux sends some hundred.
	mostForgotten = 64 << 10
	forgetSize    = 16 // struct fuse_forget_one
)

// A shape is what a request of one opcode looks like.
type shape struct {
	head    int  // the structure at its front, in bytes, the common header included
	data    int  // what may follow, at most
	changes bool // something on the host, so it is refused where the share is read-only
	size    int  // where in the head the room that its reply needs is said; 0 for nowhere
	most    int  // of that room
}

// names is the room for names: two of them, or one and where a link leads to.
const names = unix.PathMax + 256 + 2

// shapeOf is the shape of a request; ok is false for one that is not served.
func shapeOf(op opcode) (s shape, ok bool) {
	const size = 40 + 16 // ReadIn.Size
	switch op {
	case opLookup, opReadlink, opStatfs, opDestroy:
		return shape{head: headerSize, data: names}, true
	case opUnlink, opRmdir, opSymlink, opRemovexattr:
		return shape{head: headerSize, data: names, changes: true}, true
	case opForget:
		return shape{head: sizeof[fuse.ForgetIn]()}, true
	case opBatchForget:
		return shape{head: headerSize + 8, data: mostForgotten * forgetSize}, true
	case opGetattr:
		return shape{head: sizeof[fuse.GetAttrIn]()}, true
	case opSetattr:
		return shape{head: sizeof[fuse.SetAttrIn](), changes: true}, true
	case opMknod:
		return shape{head: sizeof[fuse.MknodIn](), data: names, changes: true}, true
	case opMkdir:
		return shape{head: sizeof[fuse.MkdirIn](), data: names, changes: true}, true
	case opRename:
		return shape{head: headerSize + 8, data: names, changes: true}, true
	case opRename2:
		return shape{head: sizeof[fuse.RenameIn](), data: names, changes: true}, true
	case opLink:
		return shape{head: sizeof[fuse.LinkIn](), data: names, changes: true}, true
	case opOpen, opOpendir:
		return shape{head: sizeof[fuse.OpenIn]()}, true
	case opRead, opReaddir, opReaddirplus:
		return shape{head: sizeof[fuse.ReadIn](), size: size, most: MaxTransfer}, true
	case opWrite:
		return shape{head: sizeof[fuse.WriteIn](), data: MaxTransfer, changes: true}, true
	case opRelease, opReleasedir:
		return shape{head: sizeof[fuse.ReleaseIn]()}, true
	case opFsync, opFsyncdir:
		return shape{head: sizeof[fuse.FsyncIn]()}, true
	case opSetxattr: // without SETXATTR_EXT, which is not asked for
		return shape{head: headerSize + 8, data: mostXattr + names, changes: true}, true
	case opGetxattr, opListxattr:
		return shape{head: sizeof[fuse.GetXAttrIn](), data: names, size: headerSize, most: mostXattr}, true
	case opInit: // older ones are shorter
		return shape{head: headerSize + 16, data: longestHead}, true
	case opCreate:
		return shape{head: sizeof[fuse.CreateIn](), data: names, changes: true}, true
	case opFallocate:
		return shape{head: sizeof[fuse.FallocateIn](), changes: true}, true
	case opLseek:
		return shape{head: sizeof[fuse.LseekIn]()}, true
	case opCopyFileRange:
		return shape{head: sizeof[fuse.CopyFileRangeIn](), changes: true}, true
	}
	return shape{}, false
}

func sizeof[T any]() int { var t T; return int(unsafe.Sizeof(t)) }

// A request is one whose front was copied: the guest may change its own meanwhile.
type request struct {
	shape
	op   opcode
	head [longestHead]byte
	in   [][]byte // what follows the head
}

// parse copies the front of a request and checks its sizes. reply is how much room there
// is for an answer. Where there is no header, there is nobody to answer.
func parse(in [][]byte, reply int64) (r *request, answer bool, err error) {
	total := iovec.Len(in)
	if total < int64(headerSize) {
		return nil, false, fmt.Errorf("%w: a request of %d bytes", unix.EINVAL, total)
	}
	r = new(request)
	iovec.Gather(r.head[:headerSize], in)
	r.op = opcode(r.uint32(4))
	answer = r.op != opForget && r.op != opBatchForget
	var known bool
	if r.shape, known = shapeOf(r.op); !known {
		return r, answer, unix.ENOSYS
	}
	if n := r.uint32(0); int64(n) != total {
		return r, answer, fmt.Errorf("%w: opcode %d: %d bytes that say they are %d", unix.EINVAL, r.op, total, n)
	}
	if total < int64(r.shape.head) || total > int64(r.shape.head+r.data) {
		return r, answer, fmt.Errorf("%w: opcode %d: %d bytes; it has %d, and up to %d more", unix.EINVAL, r.op, total, r.shape.head, r.data)
	}
	if r.op == opInit {
		r.shape.head = int(min(total, longestHead))
		total = int64(r.shape.head) // what newer kernels have to say is not looked at
	}
	front := iovec.Slice(in, int64(headerSize), int64(r.shape.head-headerSize))
	iovec.Gather(r.head[headerSize:r.shape.head], front)
	r.in = iovec.Slice(in, int64(r.shape.head), total-int64(r.shape.head))
	if r.size != 0 {
		if n := r.uint32(r.size); int64(n) > int64(r.most) || int64(n)+int64(replySize) > reply {
			return r, answer, fmt.Errorf("%w: opcode %d: asks for %d bytes, of at most %d, with room for %d", unix.EINVAL, r.op, n, r.most, reply)
		}
	}
	return r, answer, nil
}

// changing tells whether a request is to change something on the host.
func (r *request) changing() bool {
	return r.changes || r.op == opOpen && r.uint32(headerSize)&openFlags != unix.O_RDONLY
}

func (r *request) uint32(off int) uint32 { return binary.LittleEndian.Uint32(r.head[off:]) }
func (r *request) uint64(off int) uint64 { return binary.LittleEndian.Uint64(r.head[off:]) }

// slow tells whether requests of an opcode may take long where nothing is wrong.
func (o opcode) slow() bool {
	return o == opFsync || o == opFsyncdir || o == opFallocate || o == opCopyFileRange || o == opDestroy
}

// Do answers one request: it reads in, writes the answer to the front of out, and returns
// how many bytes that has; 0 where there is none. Both may be the guest's memory, and
// change at any time.
func (s *Share) Do(in, out [][]byte) uint32 {
	room := iovec.Len(out)
	r, answer, err := parse(in, room)
	if r == nil {
		s.log.Debug("share: a bad request", "err", err)
		return 0
	}
	if err == nil && s.c.ReadOnly && r.changing() {
		err = unix.EROFS
	}
	if err == nil {
		var n uint32
		if n, err = s.do(r, out, answer); err == nil {
			return n
		}
	}
	s.log.Debug("share: a request was refused", "opcode", r.op, "err", err)
	if !answer || room < int64(replySize) {
		return 0
	}
	return r.refuse(s.nodes.table.status(err), out)
}

// refuse writes an answer that is nothing but an error.
func (r *request) refuse(st fuse.Status, out [][]byte) uint32 {
	var b [replySize]byte
	binary.LittleEndian.PutUint32(b[0:], uint32(replySize))
	binary.LittleEndian.PutUint32(b[4:], uint32(-st))
	copy(b[8:], r.head[8:16]) // unique
	return uint32(iovec.Scatter(out, b[:]))
}

// do has a request answered, unless it fails before that.
func (s *Share) do(r *request, out [][]byte, answer bool) (n uint32, err error) {
	defer func() {
		if what := recover(); what != nil {
			s.panicked(what)
			n, err = 0, unix.EIO
		}
	}()
	if r.op == opInit || r.op == opDestroy {
		return s.remount(r, out)
	}
	s.mount.RLock()
	defer s.mount.RUnlock()
	if !s.mounted {
		return 0, fmt.Errorf("%w: INIT comes first", unix.EIO)
	}
	return s.pass(r, out, answer)
}

// remount does INIT and DESTROY: both leave nothing of what was before.
func (s *Share) remount(r *request, out [][]byte) (uint32, error) {
	s.mount.Lock()
	defer s.mount.Unlock()
	if s.closed {
		return 0, unix.ENODEV
	}
	s.forget()
	if r.op == opInit {
		if major, minor := r.uint32(40), r.uint32(44); major != protocolMajor || minor < oldestMinor {
			return 0, fmt.Errorf("%w: FUSE %d.%d; %d.%d or newer is needed", unix.EPROTO, major, minor, protocolMajor, oldestMinor)
		}
	}
	n, err := s.pass(r, out, true)
	s.mounted = err == nil && r.op == opInit
	return n, err
}

// The protocol's versions: what Linux 5.4, the first with virtio-fs, speaks is newer.
const (
	protocolMajor = 7
	oldestMinor   = 27
)

// pass has the library answer a request. Its front is our copy; the rest, names and data,
// is read once: names are checked where they were copied (checkName).
func (s *Share) pass(r *request, out [][]byte, answer bool) (uint32, error) {
	switch node := r.uint64(16); node {
	case fuse.FUSE_ROOT_ID:
		// The library keeps one name in the root for itself, and knows the root by
		// this number.
		binary.LittleEndian.PutUint64(r.head[16:], rootAlias)
	case rootAlias, ^uint64(0): // the second is a number that the library uses for that name
		return 0, unix.ESTALE
	}
	in := append([][]byte{r.head[:r.shape.head]}, r.in...)
	n, st := s.fuse.HandleRequest(in, out)
	if n == 0 && answer {
		if st.Ok() {
			st = fuse.EIO
		}
		return 0, unix.Errno(st)
	}
	return uint32(n), nil
}

// Slow tells whether a request may take long, though nothing is wrong.
func (*Share) Slow(in [][]byte) bool {
	var b [8]byte
	if iovec.Gather(b[:], in) < len(b) {
		return false
	}
	return opcode(binary.LittleEndian.Uint32(b[4:])).slow()
}
