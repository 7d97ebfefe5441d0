package rootfs

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// FuzzBuild gives one archive as two layers. Whatever it is, a build ends, writes no more
// than the layers have and a block or two for each entry, and what it makes can be read.
func FuzzBuild(f *testing.F) {
	f.Add(pack(f, dir("d", 0o700), file("d/a", "1"), hard("b", "d/a"), file(".wh.c", ""), link("l", "d"), file("l/y", strings.Repeat("z", 5000))))
	f.Add(pack(f, file("d/.wh..wh..opq", ""), file("d/x", "1").with(xattr("user.a", "1")), hard("d/y", "d/x"), special("c", '3', 1, 3), special("p", '6', 0, 0)))
	f.Add(pack(f, file(strings.Repeat("long/", 60)+"name", "1"), link("../e", strings.Repeat("t", 300))))
	for _, form := range []string{"old", "0.0", "0.1", "1.0"} {
		f.Add(sparseArchive(f, form, 20000, []fragment{{0, 10}, {5000, 100}, {12288, 1}, {13000, 1}, {14000, 1}}, strings.Repeat("x", 113)))
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		archive = mend(archive)
		image, stats, err := buildInMemory(t, layerOf(archive), layerOf(archive))
		if err != nil {
			return
		}
		var st unix.Stat_t
		require.NoError(t, unix.Stat(image, &st))
		require.LessOrEqual(t, st.Blocks*512, 2*int64(len(archive))+int64(stats.Entries+stats.Directories+2)*3*blockSize)
		readAll(t, image)
	})
}

// mend makes the checksums of an archive's headers right, so that the fuzzer gets past them.
func mend(archive []byte) []byte {
	p := bytes.Clone(archive)
	for at := int64(0); at+512 <= int64(len(p)); {
		h := p[at : at+512]
		if isZero(h) {
			break
		}
		sum(h)
		at += 512
		if size := number(h[124:136]); size > 0 && size < int64(len(p)) {
			at += alignUp(size, 512)
		}
	}
	return p
}

// readAll reads all of an image that can be read with go-erofs, which wants names in UTF-8
// and paths that are not very long.
func readAll(t *testing.T, image string) {
	t.Helper()
	f, err := os.Open(image)
	require.NoError(t, err)
	defer f.Close()
	fsys, err := erofs.Open(f)
	require.NoError(t, err)
	names, links := map[int64]int{}, map[int64]int{}
	complete := true
	var visit func(string)
	visit = func(name string) {
		entries, err := fs.ReadDir(fsys, name)
		require.NoError(t, err)
		for _, e := range entries {
			below := path.Join(name, e.Name())
			if !fs.ValidPath(below) {
				complete = false
				continue
			}
			info, err := e.Info()
			require.NoError(t, err)
			if info.IsDir() {
				visit(below)
				continue
			}
			st := info.Sys().(*erofs.Stat)
			names[st.Ino]++
			links[st.Ino] = st.Nlink
			if info.Mode().IsRegular() && info.Size() < 1<<20 {
				file, err := fsys.Open(below)
				require.NoError(t, err)
				n, err := io.Copy(io.Discard, file)
				require.NoError(t, err)
				require.Equal(t, info.Size(), n)
				require.NoError(t, file.Close())
			}
		}
	}
	visit(".")
	if complete {
		require.Equal(t, links, names)
	}
}
