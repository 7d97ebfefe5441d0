package qcow2

import (
	"encoding/binary"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// with returns an image whose header was changed.
func with(t *testing.T, o CreateOptions, change func(p []byte)) *memFile {
	f := newImage(t, 1<<20, o)
	change(f.data)
	return f
}

func put32(at int, v uint32) func([]byte) {
	return func(p []byte) { binary.BigEndian.PutUint32(p[at:], v) }
}

func put64(at int, v uint64) func([]byte) {
	return func(p []byte) { binary.BigEndian.PutUint64(p[at:], v) }
}

func TestHeadersThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		change func([]byte)
		want   error
		text   string
	}{
		{put32(0, 0), ErrFormat, "does not begin"},
		{put32(4, 1), ErrUnsupported, "version 1"},
		{put32(hdrClusterBits, 8), ErrFormat, "cluster_bits"},
		{put32(hdrClusterBits, 22), ErrFormat, "cluster_bits"},
		{put32(hdrCrypt, 1), ErrUnsupported, "AES"},
		{put32(hdrCrypt, 2), ErrUnsupported, "LUKS"},
		{put64(hdrIncompatible, featDataFile), ErrUnsupported, "external data file"},
		{put64(hdrIncompatible, featExtendedL2), ErrUnsupported, "subclusters"},
		{put64(hdrIncompatible, 1<<40), ErrUnsupported, "bit 40"},
		{put64(hdrIncompatible, featDirty), ErrDirty, "qemu-img check"},
		{put64(hdrIncompatible, featCorrupt), ErrCorrupt, "qemu-img check"},
		{put64(hdrIncompatible, featCompression), ErrFormat, "compression"},
		{func(p []byte) { p[hdrCompression] = 1 }, ErrFormat, "compression"},
		{func(p []byte) { p[hdrCompression], p[hdrIncompatible+7] = 2, featCompression }, ErrUnsupported, "compression type 2"},
		{put32(hdrRefcountOrder, 7), ErrFormat, "refcount_order"},
		{put32(hdrLength, 0xfffffff8), ErrFormat, "header_length"},
		{put64(hdrSize, 1<<62), ErrFormat, "larger clusters"},
		{put64(hdrSize, 1<<63), ErrFormat, "size"},
		{put64(hdrSize, 1<<30), ErrFormat, "entries"},
		{put32(hdrL1Size, 0xffffffff), ErrFormat, "larger clusters"},
		{put32(hdrL1Size, 0), ErrFormat, "entries"},
		{put64(hdrL1Offset, 0), ErrFormat, "l1_table_offset"},
		{put64(hdrL1Offset, 512), ErrFormat, "l1_table_offset"},
		{put64(hdrRefTableOffset, 0), ErrFormat, "refcount table"},
		{put64(hdrRefTableOffset, 1<<60), ErrFormat, "refcount_table_offset"},
		{put32(hdrRefTableLength, 1<<31), ErrFormat, "8 MiB"},
		{put64(1<<16, 1<<16+1), ErrCorrupt, "entry 0"},
		{put64(1<<16+8, 1<<17), ErrCorrupt, "entry 1"},
		{put64(1<<16+8, 1<<40), ErrCorrupt, "entry 1"},
		{put32(headerUs, 5), nil, ""},
		{func(p []byte) { put32(headerUs, 5)(p); put32(headerUs+4, 1<<30)(p) }, ErrFormat, "extension"},
		{func(p []byte) { put64(hdrBackingOffset, 1<<16-3)(p); put32(hdrBackingSize, 4)(p) }, ErrFormat, "first cluster"},
		{func(p []byte) { put64(hdrBackingOffset, 200)(p); put32(hdrBackingSize, 1024)(p) }, ErrFormat, "1024 bytes"},
		{func(p []byte) { put64(hdrBackingOffset, 200)(p); put32(hdrBackingSize, 4)(p) }, ErrFormat, "zero byte"},
	} {
		f := with(t, CreateOptions{}, c.change)
		q, err := Open(f, Options{})
		if c.want == nil {
			require.NoError(t, err)
			require.NoError(t, q.Close())
			continue
		}
		require.ErrorIs(t, err, c.want)
		require.ErrorContains(t, err, c.text)
		require.True(t, f.closed)
	}
	f := with(t, CreateOptions{}, func(p []byte) {
		put64(hdrIncompatible, 1<<7)(p)
		put32(headerUs, extFeatureNames)(p)
		put32(headerUs+4, 48)(p)
		copy(p[headerUs+8:], "\x00\x07time travel")
	})
	_, err := Open(f, Options{})
	require.ErrorContains(t, err, `bit 7 ("time travel")`)
}

// TestDamagedImagesAreRead: read-only, as there is nothing to lose.
func TestDamagedImagesAreRead(t *testing.T) {
	for _, bit := range []uint64{featDirty, featCorrupt} {
		q, err := Open(with(t, CreateOptions{}, put64(hdrIncompatible, bit)), Options{ReadOnly: true})
		require.NoError(t, err)
		require.Len(t, readDisk(t, q), 1<<20)
		require.Error(t, q.WriteAt([][]byte{{1}}, 0))
		require.NoError(t, q.Close())
	}
}

func TestAutoclearFeaturesAreClearedBeforeWriting(t *testing.T) {
	f := with(t, CreateOptions{}, put64(hdrAutoclear, 1))
	q, err := Open(f, Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, q.Close())
	require.EqualValues(t, 1, f.data[hdrAutoclear+7])

	var log strings.Builder
	q, err = Open(f, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	require.Zero(t, f.data[hdrAutoclear+7])
	require.Contains(t, log.String(), "bitmaps")
	require.NoError(t, q.Close())
}

// TestMetadataCountedAsFree: an image that would overwrite its own tables.
func TestMetadataCountedAsFree(t *testing.T) {
	f := newImage(t, 1<<20, CreateOptions{ClusterBits: 12})
	before := string(f.data)
	clear(f.data[2<<12 : 3<<12]) // the refcount block
	q := open(t, f, nil)
	require.ErrorIs(t, q.WriteAt([][]byte{{1}}, 0), ErrCorrupt)
	require.NoError(t, q.Close())
	require.Equal(t, before[:2<<12], string(f.data[:2<<12]))
}

// TestTablesInMemoryAreBounded while a guest goes through a disk far larger.
func TestTablesInMemoryAreBounded(t *testing.T) {
	f := newImage(t, 64<<20, CreateOptions{ClusterBits: 9})
	q := open(t, f, nil)
	for off := int64(0); off < q.Size(); off += 32 << 10 {
		require.NoError(t, q.WriteAt([][]byte{{1}}, off))
		require.LessOrEqual(t, len(q.l2s.tables), 3)
		require.LessOrEqual(t, len(q.blocks.tables), 3)
	}
	require.NoError(t, q.Close())
	v := check(f.data)
	require.Empty(t, v.errors)
	require.Zero(t, v.leaks)
}
