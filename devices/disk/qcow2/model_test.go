package qcow2

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// variants are the shapes of image that the tests go through.
var variants = []CreateOptions{
	{},
	{Version: 2},
	{ClusterBits: 9},
	{ClusterBits: 9, RefcountBits: 64},
	{ClusterBits: 9, Version: 2},
	{ClusterBits: 12, RefcountBits: 1},
	{ClusterBits: 12, RefcountBits: 2},
	{ClusterBits: 10, RefcountBits: 4},
	{ClusterBits: 11, RefcountBits: 8},
	{ClusterBits: 13, RefcountBits: 32},
	{ClusterBits: 21},
}

// noise fills p so that every sector differs.
func noise(p []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

// A model is an image beside the bytes that must be in it.
type model struct {
	q    *Image
	f    *memFile
	base memBacking
	want []byte
	seed uint64
}

// step does one random thing.
func (m *model) step(t *rapid.T) {
	sectors := len(m.want) / 512
	first := rapid.IntRange(0, sectors-1).Draw(t, "sector")
	n := rapid.IntRange(1, min(sectors-first, 200)).Draw(t, "sectors")
	off, end := int64(first)*512, int64(first+n)*512
	switch rapid.IntRange(0, 9).Draw(t, "op") {
	case 0, 1, 2, 3:
		m.seed++
		noise(m.want[off:end], m.seed)
		pieces := split(bytes.Clone(m.want[off:end]), rapid.SampledFrom([]int{512, 4096, 1 << 20}).Draw(t, "piece"))
		require.NoError(t, m.q.WriteAt(pieces, off))
	case 4, 5:
		got := make([]byte, end-off)
		require.NoError(t, m.q.ReadAt(split(got, 1536), off))
		require.True(t, bytes.Equal(m.want[off:end], got), "read at %#x", off)
	case 6:
		require.NoError(t, m.q.WriteZeroes(off, end-off, rapid.Bool().Draw(t, "unmap")))
		clear(m.want[off:end])
	case 7:
		require.NoError(t, m.q.Discard(off, end-off))
		// What a discard leaves is the image's choice: old bytes or zeroes.
		got := make([]byte, end-off)
		require.NoError(t, m.q.ReadAt([][]byte{got}, off))
		for i := range got {
			require.True(t, got[i] == 0 || got[i] == m.want[off+int64(i)])
		}
		copy(m.want[off:], got)
	case 8:
		require.NoError(t, m.q.Flush())
	case 9:
		require.NoError(t, m.q.Close())
		v := check(m.f.data)
		require.Empty(t, v.errors)
		require.Zero(t, v.leaks)
		m.q = open(t, m.f, m.backing())
	}
}

func (m *model) backing() Backing {
	if m.base == nil {
		return nil
	}
	return m.base
}

// TestRandomOperationsMatchAModel takes longer with -rapid.checks=10000.
func TestRandomOperationsMatchAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.SampledFrom(variants).Draw(t, "variant")
		size := int64(rapid.IntRange(1, 4000).Draw(t, "size")) * 512
		m := &model{f: newImage(t, size, o), want: make([]byte, size)}
		if n := rapid.Int64Range(0, 2*size/512).Draw(t, "base"); n > 0 {
			m.base = make(memBacking, n*512)
			noise(m.base, 99)
			copy(m.want, m.base)
		}
		m.f.punch = rapid.Bool().Draw(t, "punch")
		m.q = open(t, m.f, m.backing())
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			m.step(t)
		}
		require.True(t, bytes.Equal(m.want, readDisk(t, m.q)))
		require.NoError(t, m.q.Close())
		v := check(m.f.data)
		require.Empty(t, v.errors)
		require.Zero(t, v.leaks)
		m.q = open(t, m.f, m.backing())
		require.True(t, bytes.Equal(m.want, readDisk(t, m.q)), "after opening it again")
		require.NoError(t, m.q.Close())
	})
}
