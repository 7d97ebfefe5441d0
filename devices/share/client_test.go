package share

import (
	"encoding/binary"
	"log/slog"
	"os"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A client is a guest's kernel, on the level of the protocol. It says what it likes.
type client struct {
	*Share
	t      testing.TB
	owner  fuse.Owner
	unique uint64
}

// share serves a folder to a client that has said INIT.
func share(t testing.TB, c Config) *client {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	client := &client{Share: s, t: t, owner: fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}}
	client.init()
	return client
}

func (c *client) init() fuse.InitOut {
	c.t.Helper()
	in := fuse.InitIn{Major: 7, Minor: 38, MaxReadAhead: 128 << 10, Flags: ^uint32(0)}
	in.Flags2 = 0
	return get[fuse.InitOut](c, opInit, 0, &in)
}

// bytesOf is a structure as it stands in memory.
func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// message is a request: body begins with room for the header.
func (c *client) message(op opcode, node uint64, body []byte, rest ...string) []byte {
	var data []byte
	for _, text := range rest {
		data = append(append(data, text...), 0)
	}
	return c.with(op, node, body, data)
}

func (c *client) with(op opcode, node uint64, body, data []byte) []byte {
	c.unique++
	m := append(append([]byte(nil), body...), data...)
	h := (*fuse.InHeader)(unsafe.Pointer(&m[0]))
	*h = fuse.InHeader{
		Length: uint32(len(m)), Opcode: uint32(op), Unique: c.unique, NodeId: node,
		Caller: fuse.Caller{Owner: c.owner, Pid: 1},
	}
	return m
}

// send does a request, with room for an answer of so many bytes, and returns the answer.
func (c *client) send(m []byte, room int) ([]byte, unix.Errno) {
	c.t.Helper()
	out := make([]byte, replySize+room)
	// As Linux does, the header is one piece, and the rest others.
	n := c.Do([][]byte{m[:headerSize], m[headerSize:]}, [][]byte{out[:replySize], out[replySize:]})
	require.GreaterOrEqual(c.t, int(n), replySize)
	require.EqualValues(c.t, n, binary.LittleEndian.Uint32(out), "the length that the answer says")
	require.Equal(c.t, c.unique, binary.LittleEndian.Uint64(out[8:]))
	errno := unix.Errno(-int32(binary.LittleEndian.Uint32(out[4:])))
	return out[replySize:n], errno
}

var header = make([]byte, headerSize)

// call does a request whose answer is a T.
func call[T, B any](c *client, op opcode, node uint64, body *B, rest ...string) (T, unix.Errno) {
	c.t.Helper()
	var v T
	b := bytesOf(body)
	switch op {
	case opRename, opSetxattr:
		b = b[:headerSize+8]
	}
	answer, errno := c.send(c.message(op, node, b, rest...), int(unsafe.Sizeof(v)))
	if errno == 0 {
		require.Len(c.t, answer, int(unsafe.Sizeof(v)))
		copy(bytesOf(&v), answer)
	}
	return v, errno
}

// get is call of what succeeds.
func get[T, B any](c *client, op opcode, node uint64, body *B, rest ...string) T {
	c.t.Helper()
	v, errno := call[T](c, op, node, body, rest...)
	require.Zero(c.t, errno, "opcode %d %q: %v", op, rest, errno)
	return v
}

type none struct{}

func (c *client) lookup(dir uint64, name string) (fuse.EntryOut, unix.Errno) {
	c.t.Helper()
	return call[fuse.EntryOut](c, opLookup, dir, &fuse.InHeader{}, name)
}

// walk looks up one name after the other, from the root on.
func (c *client) walk(names ...string) uint64 {
	c.t.Helper()
	node := uint64(fuse.FUSE_ROOT_ID)
	for _, name := range names {
		e, errno := c.lookup(node, name)
		require.Zero(c.t, errno, "%s: %v", name, errno)
		node = e.NodeId
	}
	return node
}

func (c *client) attr(node uint64) fuse.Attr {
	c.t.Helper()
	return get[fuse.AttrOut](c, opGetattr, node, &fuse.GetAttrIn{}).Attr
}

func (c *client) open(node uint64, flags int) (uint64, unix.Errno) {
	c.t.Helper()
	o, errno := call[fuse.OpenOut](c, opOpen, node, &fuse.OpenIn{Flags: uint32(flags)})
	return o.Fh, errno
}

func (c *client) opened(node uint64, flags int) uint64 {
	c.t.Helper()
	fh, errno := c.open(node, flags)
	require.Zero(c.t, errno)
	return fh
}

func (c *client) release(node, fh uint64) {
	c.t.Helper()
	get[none](c, opRelease, node, &fuse.ReleaseIn{Fh: fh})
}

func (c *client) create(dir uint64, name string, flags int, mode uint32) (fuse.CreateOut, unix.Errno) {
	c.t.Helper()
	return call[fuse.CreateOut](c, opCreate, dir, &fuse.CreateIn{Flags: uint32(flags), Mode: unix.S_IFREG | mode}, name)
}

func (c *client) created(dir uint64, name string) fuse.CreateOut {
	c.t.Helper()
	out, errno := c.create(dir, name, unix.O_RDWR|unix.O_EXCL, 0o644)
	require.Zero(c.t, errno)
	return out
}

func (c *client) read(fh uint64, off int64, n int) (string, unix.Errno) {
	c.t.Helper()
	in := fuse.ReadIn{Fh: fh, Offset: uint64(off), Size: uint32(n)}
	b, errno := c.send(c.with(opRead, 0, bytesOf(&in), nil), n)
	return string(b), errno
}

func (c *client) write(in fuse.WriteIn, data string) (uint32, unix.Errno) {
	c.t.Helper()
	in.Size = uint32(len(data))
	b, errno := c.send(c.with(opWrite, 0, bytesOf(&in), []byte(data)), 8)
	if errno != 0 {
		return 0, errno
	}
	return binary.LittleEndian.Uint32(b), 0
}

func (c *client) forget(node, n uint64) {
	in := fuse.ForgetIn{Nlookup: n}
	require.Zero(c.t, c.Do([][]byte{c.with(opForget, node, bytesOf(&in), nil)}, nil))
}

// list reads a folder from the beginning, size bytes at a time.
func (c *client) list(node uint64, size int) []fuse.DirEntry {
	c.t.Helper()
	o := get[fuse.OpenOut](c, opOpendir, node, &fuse.OpenIn{})
	defer get[none](c, opReleasedir, node, &fuse.ReleaseIn{Fh: o.Fh})
	var all []fuse.DirEntry
	for off := uint64(0); ; {
		some := c.listFrom(node, o.Fh, off, size)
		if len(some) == 0 {
			return all
		}
		all = append(all, some...)
		off = some[len(some)-1].Off
	}
}

func (c *client) listFrom(node, fh, off uint64, size int) []fuse.DirEntry {
	c.t.Helper()
	in := fuse.ReadIn{Fh: fh, Offset: off, Size: uint32(size)}
	b, errno := c.send(c.with(opReaddir, node, bytesOf(&in), nil), size)
	require.Zero(c.t, errno)
	entries, err := fuse.ParseDirEntries(b)
	require.NoError(c.t, err)
	return entries
}
