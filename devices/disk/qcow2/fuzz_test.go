package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// pack compresses as QEMU does: a raw deflate stream, or a zstd frame.
func pack(t testing.TB, c Compression, p []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	if c == Zlib {
		w, err = flate.NewWriter(&b, 6)
	} else {
		w, err = zstd.NewWriter(&b)
	}
	require.NoError(t, err)
	_, err = w.Write(p)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// packedImage returns an image of clusters of 4 KiB, whose first two are
// compressed into one host cluster, the third is data and the fourth zero.
func packedImage(t testing.TB, c Compression, version int) (f *memFile, want []byte) {
	const cs = 4096
	f = newImage(t, 20*cs, CreateOptions{Version: version, ClusterBits: 12})
	q := open(t, f, nil)
	want = make([]byte, 20*cs)
	for i := range 3 {
		copy(want[i*cs:], bytes.Repeat([]byte{byte(i), 'h', 'u', 's', 'k'}, cs/5))
	}
	require.NoError(t, q.WriteAt([][]byte{want[:4*cs]}, 0))
	require.NoError(t, q.WriteZeroes(3*cs, cs, true))
	require.NoError(t, q.Flush())
	l2, err := q.l2(0)
	require.NoError(t, err)
	host := int64(l2.entry(0) & entryOffset)
	at := host
	for i := range int64(2) {
		p := pack(t, c, want[i*cs:(i+1)*cs])
		copy(f.data[at:], p)
		sectors := (at+int64(len(p))-1)/512 - at/512
		x := 62 - (12 - 8)
		if i == 1 {
			q.retire(q.hostClusters(l2.entry(1)))
		}
		l2.set(i, entryCompressed|uint64(at)|uint64(sectors)<<x)
		at += int64(len(p))
	}
	block, err := q.block(0)
	require.NoError(t, err)
	q.setRef(block, host>>12, 2)
	require.NoError(t, q.Close())
	if c == Zstd {
		binary.BigEndian.PutUint64(f.data[hdrIncompatible:], featCompression)
		f.data[hdrCompression] = byte(c)
	}
	v := check(f.data)
	require.Empty(t, v.errors)
	require.Zero(t, v.leaks)
	return f, want
}

func TestCompressedClusters(t *testing.T) {
	for _, c := range []struct {
		compression Compression
		version     int
	}{{Zlib, 2}, {Zlib, 3}, {Zstd, 3}} {
		f, want := packedImage(t, c.compression, c.version)
		q := open(t, f, nil)
		require.True(t, bytes.Equal(want, readDisk(t, q)))
		for i := int64(0); i < 5; i++ { // across both, and what was kept
			got := make([]byte, 5000)
			require.NoError(t, q.ReadAt([][]byte{got[:7], got[7:]}, 100*i))
			require.Equal(t, want[100*i:100*i+5000], got)
		}
		copy(want[1000:], "written into the middle")
		require.NoError(t, q.WriteAt([][]byte{want[1000:1023]}, 1000))
		require.True(t, bytes.Equal(want, readDisk(t, q)))
		require.NoError(t, q.Flush())
		require.NoError(t, q.WriteAt([][]byte{want[5000:9000]}, 5000))
		require.NoError(t, q.Close())
		v := check(f.data)
		require.Empty(t, v.errors)
		require.Zero(t, v.leaks)
		require.True(t, bytes.Equal(want, readDisk(t, open(t, f, nil))))
	}
}

func FuzzHeader(f *testing.F) {
	for _, o := range []CreateOptions{{}, {Version: 2, ClusterBits: 9}, {ClusterBits: 12, Backing: "base.raw", BackingFormat: "raw"}} {
		p := newImage(f, 1<<20, o).data
		f.Add(p[:512])
	}
	p := newImage(f, 1<<20, CreateOptions{ClusterBits: 9}).data[:512]
	p[hdrIncompatible+6] = 1
	copy(p[headerUs:], "\x68\x03\xf8\x57\x00\x00\x00\x30\x00\x08future")
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := parseHeader(p)
		if err != nil {
			require.True(t, errors.Is(err, ErrFormat) || errors.Is(err, ErrUnsupported), "%v", err)
			return
		}
		require.LessOrEqual(t, h.l1Needed*8, int64(maxL1Bytes))
		require.LessOrEqual(t, h.refTableClusters<<h.clusterBits, int64(maxRefTable))
		require.LessOrEqual(t, len(h.backing), maxBackingName)
		require.Zero(t, h.size%512)
	})
}

// FuzzImage damages an image in a few places, and works with it: neither must
// anything be refused in a wild way, nor must it hang.
func FuzzImage(f *testing.F) {
	var images [][]byte
	for _, o := range variants[:10] {
		file := newImage(f, 256<<10, o)
		q := open(f, file, nil)
		require.NoError(f, q.WriteAt([][]byte{bytes.Repeat([]byte{1}, 20<<10)}, 30<<10))
		require.NoError(f, q.WriteZeroes(40<<10, 8<<10, false))
		require.NoError(f, q.Close())
		images = append(images, file.data)
	}
	for _, c := range []Compression{Zlib, Zstd} {
		file, _ := packedImage(f, c, 3)
		images = append(images, file.data)
	}
	for i, p := range images {
		f.Add(uint8(i), []byte{}, []byte{0, 1, 2, 3, 4, 5, 6, 7})
		h, err := parseHeader(p)
		require.NoError(f, err)
		damage := binary.BigEndian.AppendUint32(nil, uint32(h.l1Offset+7))
		damage = binary.BigEndian.AppendUint32(append(damage, 0x10), uint32(h.refTableOffset+6))
		damage = append(damage, 0x20)
		f.Add(uint8(i), damage, []byte{0x11, 0x25, 0x31, 0x47, 0x50, 0x63, 0x71})
	}
	f.Fuzz(func(t *testing.T, which uint8, damage, ops []byte) {
		data := bytes.Clone(images[int(which)%len(images)])
		for i := 0; len(damage) >= 5 && i < 64; i++ {
			data[binary.BigEndian.Uint32(damage)%uint32(len(data))] = damage[4]
			damage = damage[5:]
		}
		file := &memFile{data: data, limit: 8 << 20}
		for _, readOnly := range []bool{true, false} {
			file.closed = false
			q, err := Open(file, Options{ReadOnly: readOnly, PunchHoles: true})
			if err != nil {
				require.True(t, file.closed)
				continue
			}
			smallCaches(q)
			for i, op := range ops[:min(len(ops), 32)] {
				off := min(q.size, int64(op>>4)<<14+int64(i)*512)
				n := min(q.size-off, int64(op&7)*3000)
				switch op % 6 {
				case 0, 1:
					_ = q.ReadAt([][]byte{make([]byte, n)}, off)
				case 2:
					_ = q.WriteAt([][]byte{make([]byte, n)}, off)
				case 3:
					_ = q.WriteZeroes(off, n, op&8 != 0)
				case 4:
					_ = q.Discard(off, n)
				case 5:
					_ = q.Flush()
				}
			}
			_ = q.Close()
			require.True(t, file.closed)
		}
	})
}

func FuzzCompressed(f *testing.F) {
	p := bytes.Repeat([]byte("husk "), 900)[:4096]
	for _, c := range []Compression{Zlib, Zstd} {
		f.Add(uint8(c), pack(f, c, p))
		f.Add(uint8(c), append(pack(f, c, p), 1, 2, 3))
	}
	f.Fuzz(func(t *testing.T, c uint8, src []byte) {
		u, err := newUnpacker(Compression(c%2), 4096)
		require.NoError(t, err)
		dst := make([]byte, 4096)
		if err := u.unpack(dst, src); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
	})
}
