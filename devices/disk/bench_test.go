package disk_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/disk/qcow2"
)

// BenchmarkDisk compares the formats: large requests one after the other, and
// pages in random order, on space that is allocated and on a new image.
func BenchmarkDisk(b *testing.B) {
	const size = 256 << 20
	for _, format := range []string{"raw", "qcow2"} {
		for _, fresh := range []bool{false, true} {
			for _, op := range []string{"read", "write"} {
				for _, block := range []int{1 << 20, 4096} {
					if fresh && op == "read" {
						continue
					}
					state := map[bool]string{false: "allocated", true: "new"}[fresh]
					b.Run(fmt.Sprintf("%s/%s/%s/%d", op, state, format, block), func(b *testing.B) {
						benchmark(b, format, op, block, size, fresh)
					})
				}
			}
		}
	}
}

func benchmark(b *testing.B, format, op string, block, size int, fresh bool) {
	path := filepath.Join(b.TempDir(), "disk")
	if format == "raw" {
		write(b, path, nil)
		require.NoError(b, os.Truncate(path, int64(size)))
	} else {
		require.NoError(b, disk.Create(path, int64(size), qcow2.CreateOptions{}))
	}
	d := open(b, path+",cache=unsafe,format="+format)
	large := pattern(1<<20, 1)
	for off := 0; !fresh && off < size; off += len(large) {
		require.NoError(b, d.WriteAt([][]byte{large}, int64(off)))
	}
	v := [][]byte{large[:block/2], large[block/2 : block]}
	order := rand.New(rand.NewPCG(1, 1)).Perm(size / block)
	b.SetBytes(int64(block))
	b.ResetTimer()
	for i := range b.N {
		n := i % len(order)
		if block == 4096 {
			n = order[n]
		}
		var err error
		if op == "read" {
			err = d.ReadAt(v, int64(n*block))
		} else {
			err = d.WriteAt(v, int64(n*block))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	require.NoError(b, d.Close())
}
