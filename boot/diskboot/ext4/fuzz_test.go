package ext4

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// patch writes pieces over an image: an offset of three bytes, a length of one,
// and that many bytes. So whatever the fuzzer makes is mostly a file system.
func patch(image, patches []byte) []byte {
	for len(patches) > 4 {
		off := int(patches[0]) | int(patches[1])<<8 | int(patches[2])<<16
		n := min(int(patches[3]), len(patches)-4)
		copy(image[off%len(image):], patches[4:4+n])
		patches = patches[4+n:]
	}
	return image
}

// at makes such a piece.
func at(off int, bytes ...byte) []byte {
	return append([]byte{byte(off), byte(off >> 8), byte(off >> 16), byte(len(bytes))}, bytes...)
}

func FuzzExt4(f *testing.F) {
	for which, g := range goldens {
		image := golden(f, g.name)
		f.Add(byte(which), []byte{})
		f.Add(byte(which), at(superOffset+0x60, image[superOffset+0x60]|4))
		f.Add(byte(which), at(superOffset+0x18, 2))
		for _, magic := range [][]byte{{0x0a, 0xf3}, {0, 0, 2, 0xea}} { // extent headers, attributes
			for off := 0; off < len(image); {
				k := bytes.Index(image[off:], magic)
				if k < 0 {
					break
				}
				off += k
				f.Add(byte(which), at(off+2, image[off+2:off+16]...))
				off += 512
			}
		}
		fs, err := Open(bytes.NewReader(image))
		require.NoError(f, err)
		for _, name := range []string{"", "boot", "slow", "pieces"} {
			i, err := fs.walk(name)
			if name == "slow" {
				root, _ := fs.walk("")
				i, err = fs.child(root, name)
			}
			require.NoError(f, err)
			off := bytes.Index(image, i.raw)
			f.Add(byte(which), at(off, i.raw[:100]...))
			if i.flags&flagExtents != 0 {
				block := int(binary.LittleEndian.Uint32(i.iBlock()[20:])) * 1024
				f.Add(byte(which), at(block, image[block:block+64]...))
			}
		}
	}
	images := make([][]byte, len(goldens))
	for i, g := range goldens {
		images[i] = golden(f, g.name)
	}
	f.Fuzz(func(t *testing.T, which byte, patches []byte) {
		image := patch(bytes.Clone(images[int(which)%len(images)]), patches)
		fs, err := Open(bytes.NewReader(image))
		if err != nil {
			return
		}
		_, _, _ = fs.Kind(), fs.UUID(), fs.Size()
		for _, dir := range []string{"/", "/boot", "/etc"} {
			names, err := fs.List(dir)
			if err == nil {
				require.LessOrEqual(t, len(names), maxEntries)
			}
			infos, err := fs.ReadDir(dir)
			require.True(t, err != nil || len(infos) == len(names))
		}
		for _, name := range []string{"slow", "vmlinuz", "loop", "pieces", "a-hundred", "etc/os-release"} {
			r, err := fs.Open(name)
			i, errStat := fs.Stat(name)
			if err != nil {
				continue
			}
			require.NoError(t, errStat)
			require.Equal(t, r.Size(), i.Size())
			p := make([]byte, 4096)
			for _, off := range []int64{0, r.Size() / 2, r.Size() - 1} {
				if n, err := r.ReadAt(p, max(0, off)); err == nil {
					require.Equal(t, len(p), n)
				} else if off >= 0 && off+int64(len(p)) <= r.Size() {
					require.NotErrorIs(t, err, io.EOF)
				}
			}
		}
	})
}
