package rootfs

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// checkLayout looks at where in an image its inodes are, as Linux 5.10 does
// (fs/erofs/inode.c and data.c); later kernels, go-erofs and fsck.erofs are not as strict.
// It says how many links have their targets behind their inodes.
func checkLayout(t tester, image string) (inlineLinks int) {
	t.Helper()
	p, err := os.ReadFile(image)
	require.NoError(t, err)
	le := binary.LittleEndian
	meta := int64(le.Uint32(p[superOffset+40:])) * blockSize
	for name, n := range read(t, image) {
		at := meta + n.Ino*nidBytes
		require.LessOrEqual(t, at%blockSize+inodeSize, int64(blockSize), "%s: the inode is in two blocks", name)
		format, icount := le.Uint16(p[at:]), int64(le.Uint16(p[at+2:]))
		size := int64(le.Uint64(p[at+8:]))
		if format&^extended != flatTail {
			if where := int64(le.Uint32(p[at+16:])); size > 0 && !n.Mode.IsRegular() {
				require.LessOrEqual(t, where*blockSize+size, int64(len(p)), "%s: the content is behind the image's end", name)
			}
			continue
		}
		xattrs := int64(0)
		if icount > 0 {
			xattrs = xattrHeader + 4*(icount-1)
		}
		// erofs_map_blocks_flatmode: inline data should be located in one meta block
		tail := at + inodeSize + xattrs
		require.LessOrEqual(t, tail%blockSize+size%blockSize, int64(blockSize), "%s: the tail is in two blocks", name)
		if n.link != "" {
			// erofs_fill_symlink: inline symlink data shouldn't cross page boundary as well
			inlineLinks++
			require.Equal(t, at/blockSize, (tail+size-1)/blockSize, "%s: the target is not in the inode's block", name)
			require.Equal(t, n.link, string(p[tail:tail+size]), name)
		}
	}
	return inlineLinks
}

// Inodes that fill blocks to their ends: the target behind one would be in the next.
func TestLinksAtTheEndsOfBlocks(t *testing.T) {
	for _, target := range []int{1, 20, 64, 65, 300} {
		var entries []entry
		for i := range 300 {
			if i%3 == 0 {
				entries = append(entries, file(fmt.Sprintf("d/%04d", 2*i), ""))
			}
			entries = append(entries, link(fmt.Sprintf("d/%04d", 2*i+1), strings.Repeat("t", target)))
		}
		image, _, err := build(t, layersOf(t, entries)...)
		require.NoError(t, err)
		require.Equal(t, 300, checkLayout(t, image))
	}
}

// A link whose attributes leave its target no room in the inode's block has it elsewhere.
func TestLinksWithManyAttributes(t *testing.T) {
	const room = blockSize - inodeSize - xattrHeader - xattrEntry - len("a")
	for _, c := range []struct{ attribute, target, inline int }{
		{room - 1003, 1000, 1}, // with the padding of attributes to 4 bytes
		{room - 999, 1000, 0},
		{room - 1, 1, 0},
		{5000, 1, 0},
		{1, maxInline, 1},
		{1, maxInline + 1, 0},
	} {
		target := strings.Repeat("t", c.target)
		value := strings.Repeat("v", c.attribute)
		image, _, err := build(t, layersOf(t, []entry{link("a", target).with(xattr("trusted.a", value)), link("b", target)})...)
		require.NoError(t, err)
		got := read(t, image)
		require.Equal(t, target, got["a"].link)
		require.Equal(t, value, got["a"].Xattrs["trusted.a"])
		inline := checkLayout(t, image)
		if c.target <= maxInline {
			inline-- // b
		}
		require.Equal(t, c.inline, inline, "%+v", c)
	}
}

// Whatever stands side by side in an image, Linux 5.10 reads it.
func TestLayout(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var entries []entry
		for i := range rapid.IntRange(1, 200).Draw(r, "entries") {
			name := fmt.Sprintf("%d/%d", rapid.IntRange(0, 2).Draw(r, "directory"), i)
			var e entry
			switch rapid.IntRange(0, 3).Draw(r, "kind") {
			case 0:
				e = file(name, strings.Repeat("c", rapid.IntRange(0, 600).Draw(r, "content")))
			case 1:
				e = dir(name, 0o755)
			default:
				e = link(name, strings.Repeat("t", rapid.OneOf(rapid.IntRange(1, 80), rapid.IntRange(1, maxPath)).Draw(r, "target")))
			}
			if n := rapid.OneOf(rapid.Just(-1), rapid.IntRange(0, 200), rapid.IntRange(0, 9000)).Draw(r, "attribute"); n >= 0 {
				e = e.with(func(h *tar.Header) {
					h.PAXRecords = map[string]string{"SCHILY.xattr.security.a": strings.Repeat("v", n)}
				})
			}
			entries = append(entries, e)
		}
		image, _, err := buildInMemory(r, layersOf(r, entries)...)
		require.NoError(r, err)
		checkLayout(r, image)
	})
}
