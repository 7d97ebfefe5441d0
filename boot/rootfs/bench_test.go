package rootfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// many is a layer of n files in directories of 50, as large as those of a distribution
// are: half of them less than 4 KiB.
func many(t testing.TB, n int) []byte {
	t.Helper()
	content := strings.Repeat("what is in files that are somewhere in an image ", 2000)
	entries := make([]entry, 0, n)
	for i := range n {
		size := 1 << (i * 7 % 17)
		entries = append(entries, file(fmt.Sprintf("usr/share/%d/%d/file%d", i/2500, i/50, i), content[:size+i%100]))
	}
	return pack(t, entries...)
}

// BenchmarkBuild makes an image of 20000 files, 160 MiB, as two layers.
func BenchmarkBuild(b *testing.B) {
	archive := many(b, 20000)
	top := pack(b, file("usr/share/.wh.3", ""), file("etc/x", "x"))
	f, err := os.Create(filepath.Join(b.TempDir(), "image"))
	require.NoError(b, err)
	defer f.Close()
	b.SetBytes(int64(len(archive)))
	b.ReportAllocs()
	for b.Loop() {
		stats, err := Build(context.Background(), f, []Layer{layerOf(archive), layerOf(top)})
		require.NoError(b, err)
		require.Equal(b, 17501, stats.Files)
	}
}

// BenchmarkWriteEmpty makes a disk of 8 GiB.
func BenchmarkWriteEmpty(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "disk"))
	require.NoError(b, err)
	defer f.Close()
	for b.Loop() {
		require.NoError(b, WriteEmpty(f, 8<<30))
	}
}

// A build keeps little of each file in memory, and of contents nothing.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("200000 files")
	}
	const files = 200000
	var entries []entry
	for i := range files {
		entries = append(entries, file(fmt.Sprintf("usr/share/%d/file%d", i/50, i), "x"))
	}
	entries = append(entries, file("large", strings.Repeat("large", 20<<20)))
	archive := pack(t, entries...)
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	require.NoError(t, err)
	defer f.Close()
	b := &builder{ctx: context.Background(), out: newOutput(f), root: newDir()}
	before := heap()
	require.NoError(t, b.layer(layerOf(archive)))
	read := heap()
	require.NoError(t, b.finish())
	written := heap()
	require.Equal(t, files+1, b.stats.Files)
	perFile := (max(read, written) - before) / files
	t.Logf("%d bytes a file", perFile)
	require.Less(t, perFile, uint64(500))
	require.NotEmpty(t, archive) // it was there all the time
	check(t, f.Name())
}

// heap is how much of Go's heap is in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
