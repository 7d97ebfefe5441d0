package rootfs

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkDisk measures what it costs a guest to use /dev/vda, which has a file system
// of the type ROOTFS_DISK on it: time, and requests to the disk, each of which is an exit
// and an interrupt. docs/rootfs.md has the commands and what came out.
func BenchmarkDisk(b *testing.B) {
	kind := os.Getenv("ROOTFS_DISK")
	if kind == "" {
		b.Skip("ROOTFS_DISK=erofs, ext4 or squashfs says what is on /dev/vda")
	}
	point := b.TempDir()
	require.NoError(b, unix.Mount("/dev/vda", point, kind, unix.MS_RDONLY, ""))
	defer func() { require.NoError(b, unix.Unmount(point, 0)) }()
	files := statAll(b, point)
	random := rand.New(rand.NewSource(1))
	var some []string
	for range 300 {
		some = append(some, files[random.Intn(len(files))])
	}
	for _, c := range []struct {
		name string
		cold bool
		do   func()
	}{
		{"stat of all", true, func() { statAll(b, point) }},
		{"300 files", true, func() { readFiles(b, some) }},
		{"all files", true, func() { readFiles(b, files) }},
		{"all files again", false, func() { readFiles(b, files) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if c.cold {
					b.StopTimer()
					require.NoError(b, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
					time.Sleep(time.Second) // what is on its way to the disk comes to its end
					b.StartTimer()
				}
				requests, kib := diskReads(b)
				c.do()
				requests2, kib2 := diskReads(b)
				b.ReportMetric(requests2-requests, "requests")
				b.ReportMetric(kib2-kib, "KiB")
				b.ReportMetric(cached(b), "cached-MiB")
			}
		})
	}
}

// statAll looks at all files of a folder and gives the regular ones.
func statAll(t testing.TB, folder string) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
		return err
	}))
	require.NotEmpty(t, files)
	return files
}

func readFiles(t testing.TB, files []string) {
	t.Helper()
	buffer := make([]byte, 256<<10)
	for _, name := range files {
		f, err := os.Open(name)
		require.NoError(t, err)
		for err == nil {
			_, err = f.Read(buffer)
		}
		require.ErrorIs(t, err, io.EOF)
		f.Close()
	}
}

// diskReads counts what was read of /dev/vda (kernel Documentation/block/stat.rst).
func diskReads(t testing.TB) (requests, kib float64) {
	t.Helper()
	text, err := os.ReadFile("/sys/block/vda/stat")
	require.NoError(t, err)
	var merges, sectors float64
	_, err = fmt.Sscan(string(text), &requests, &merges, &sectors)
	require.NoError(t, err)
	return requests, sectors / 2
}

// cached is how much memory the guest keeps files in.
func cached(t testing.TB) (mib float64) {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	for _, line := range strings.Split(string(text), "\n") {
		var kib float64
		for _, what := range []string{"Buffers:", "Cached:", "SReclaimable:"} {
			if _, err := fmt.Sscanf(line, what+" %f", &kib); err == nil {
				mib += kib / 1024
			}
		}
	}
	return mib
}
