package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever the lengths of contents, targets, names and attributes, which all stand side by
// side: each is found again.
func TestLengths(t *testing.T) {
	content := make([]byte, 20000)
	for i := range content {
		content[i] = byte(i*i>>8 | 1)
	}
	length := func(most int) *rapid.Generator[int] {
		edges := []int{0, 1, inlineTail - 1, inlineTail, inlineTail + 1, maxInline, maxInline + 1, blockSize - 1, blockSize, blockSize + 1, 2*blockSize + inlineTail, 2*blockSize + inlineTail + 1}
		return rapid.OneOf(rapid.IntRange(0, most), rapid.SampledFrom(edges).Filter(func(n int) bool { return n <= most }))
	}
	rapid.Check(t, func(r *rapid.T) {
		var entries []entry
		want := map[string]node{}
		for i := range rapid.IntRange(1, 40).Draw(r, "entries") {
			name := fmt.Sprint(i, strings.Repeat("n", rapid.IntRange(0, 250).Draw(r, "name")))
			e, n := file(name, string(content[:length(len(content)).Draw(r, "size")])), node{}
			if rapid.IntRange(0, 3).Draw(r, "link") == 0 {
				n.link = "t" + strings.Repeat("t", length(maxPath-1).Draw(r, "target"))
				e = link(name, n.link)
			} else {
				n.content = []byte(e.content)
			}
			n.path = strings.Repeat("v", length(9000).Draw(r, "attribute"))
			if rapid.Bool().Draw(r, "attributed") {
				e = e.with(func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.security.a": n.path} })
			} else {
				n.path = ""
			}
			entries = append(entries, e)
			want[name] = n
		}
		image, _, err := buildInMemory(r, layersOf(r, entries)...)
		require.NoError(r, err)
		got := read(r, image)
		require.Len(r, got, len(want)+1)
		for name, w := range want {
			require.True(r, bytes.Equal(w.content, got[name].content), name)
			require.Equal(r, w.link, got[name].link, name)
			require.Equal(r, w.path, got[name].Xattrs["security.a"], name)
		}
	})
}
