package share

import (
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkDo is what a request takes without a guest: its buffers are pages, as a guest's
// are.
func BenchmarkDo(b *testing.B) {
	dir := b.TempDir()
	write(b, string(make([]byte, 1<<20)), dir, "sub", "file")
	c := share(b, Config{Path: dir})
	sub, node := c.walk("sub"), c.walk("sub", "file")
	fh := c.opened(node, unix.O_RDWR)
	pages := func(n int) (v [][]byte) {
		const pageSize = 4096
		memory := make([]byte, 2*n)
		for off := 0; off < n; off += pageSize {
			v = append(v, memory[2*off:2*off+min(pageSize, n-off)])
		}
		return v
	}
	run := func(name string, bytes int, m []byte, in, out [][]byte) {
		b.Run(name, func(b *testing.B) {
			in := append([][]byte{m[:headerSize], m[headerSize:]}, in...)
			out := append([][]byte{make([]byte, replySize)}, out...)
			b.SetBytes(int64(bytes))
			b.ReportAllocs()
			for b.Loop() {
				require.NotZero(b, c.Do(in, out))
			}
		})
	}
	for name, n := range map[string]int{"4K": 4 << 10, "128K": 128 << 10, "1M": 1 << 20} {
		run("read "+name, n, c.with(opRead, node, bytesOf(&fuse.ReadIn{Fh: fh, Size: uint32(n)}), nil), nil, pages(n))
		m := c.with(opWrite, node, bytesOf(&fuse.WriteIn{Fh: fh, Size: uint32(n)}), nil)
		(*fuse.InHeader)(unsafe.Pointer(&m[0])).Length += uint32(n)
		run("write "+name, n, m, pages(n), pages(8))
	}
	run("lookup", 0, c.message(opLookup, sub, header, "file"), nil, pages(128))
	run("getattr", 0, c.with(opGetattr, node, bytesOf(&fuse.GetAttrIn{}), nil), nil, pages(128))
}
