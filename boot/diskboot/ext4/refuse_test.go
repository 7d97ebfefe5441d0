package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// edit is a golden image with 32 bits of its superblock changed.
func edit(t *testing.T, field int, change func(uint32) uint32) []byte {
	t.Helper()
	image := golden(t, "extents")
	p := image[superOffset+field:]
	binary.LittleEndian.PutUint32(p, change(binary.LittleEndian.Uint32(p)))
	return image
}

func set(bits uint32) func(uint32) uint32 { return func(v uint32) uint32 { return v | bits } }
func to(value uint32) func(uint32) uint32 { return func(uint32) uint32 { return value } }
func not(bits uint32) func(uint32) uint32 { return func(v uint32) uint32 { return v &^ bits } }

func TestRefusedFileSystems(t *testing.T) {
	tests := []struct {
		name   string
		field  int
		change func(uint32) uint32
		kind   error
		says   string
	}{
		{"no magic", 0x38, not(0xff), ErrNotExt, "magic"},
		{"compression", 0x60, set(1), ErrUnsupported, "compression"},
		{"a journal", 0x60, set(8), ErrUnsupported, "journal_dev"},
		{"dirdata", 0x60, set(0x1000), ErrUnsupported, "dirdata"},
		{"unheard of", 0x60, set(0x80000001), ErrUnsupported, "compression, incompatible feature 0x80000000"},
		{"block size", 0x18, to(7), ErrMalformed, "1 KiB << 7"},
		{"no blocks", 0x4, to(0), ErrMalformed, "blocks"},
		{"too many blocks", 0x150, to(0xffffffff), ErrMalformed, "blocks"},
		{"no blocks in a group", 0x20, to(0), ErrMalformed, "groups"},
		{"no inodes in a group", 0x28, to(0), ErrMalformed, "groups"},
		{"inode size", 0x58, to(192), ErrMalformed, "inodes of 192"},
		{"inode size 0", 0x58, to(0), ErrMalformed, "inodes of 0"},
		{"descriptor size", 0xfc, to(96 << 16), ErrMalformed, "descriptors of 96"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Open(bytes.NewReader(edit(t, test.field, test.change)))
			require.ErrorIs(t, err, test.kind)
			require.ErrorContains(t, err, test.says)
		})
	}
	_, err := Open(bytes.NewReader(make([]byte, 1500)))
	require.ErrorIs(t, err, ErrNotExt)
	broken := errors.New("bad sector")
	_, err = Open(failing{broken})
	require.ErrorIs(t, err, broken)
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestNeedsRecovery(t *testing.T) {
	f, err := Open(bytes.NewReader(edit(t, 0x60, set(incompatRecover))))
	require.NoError(t, err)
	require.True(t, f.NeedsRecovery())
	require.NotEmpty(t, content(t, f, "boot/vmlinuz-6.1.0-9-amd64"))
}

// inodeAt finds where the inode of a file is in an image.
func inodeAt(t *testing.T, image []byte, name string) []byte {
	t.Helper()
	f, err := Open(bytes.NewReader(image))
	require.NoError(t, err)
	i, err := f.walk(name)
	require.NoError(t, err)
	at := bytes.Index(image, i.raw)
	require.Positive(t, at)
	return image[at:][:len(i.raw)]
}

func TestRefusedFiles(t *testing.T) {
	le := binary.LittleEndian
	tests := []struct {
		name   string
		file   string
		damage func(inode []byte)
		kind   error
	}{
		{"encrypted", "pieces", func(i []byte) { le.PutUint32(i[0x20:], flagExtents|flagEncrypt) }, ErrUnsupported},
		{"encrypted folder", "boot", func(i []byte) { le.PutUint32(i[0x20:], flagExtents|flagEncrypt) }, ErrUnsupported},
		{"negative size", "pieces", func(i []byte) { le.PutUint32(i[0x6c:], 1<<31) }, ErrMalformed},
		{"huge folder", "boot", func(i []byte) { le.PutUint32(i[0x6c:], 1<<20) }, ErrUnsupported},
		{"no extent magic", "pieces", func(i []byte) { i[0x28]++ }, ErrMalformed},
		{"too many extents", "pieces", func(i []byte) { i[0x2a] = 5 }, ErrMalformed},
		{"depth", "pieces", func(i []byte) { i[0x2e] = 6 }, ErrMalformed},
		{"depth that does not fit", "pieces", func(i []byte) { i[0x2e] = 2 }, ErrMalformed},
		{"extent outside", "boot/vmlinuz-6.1.0-9-amd64", func(i []byte) { le.PutUint32(i[0x3c:], 1<<20) }, ErrMalformed},
		{"extents overlap", "boot/vmlinuz-6.1.0-9-amd64", func(i []byte) { i[0x2a] = 2; copy(i[0x40:0x4c], i[0x34:0x40]) }, ErrMalformed},
		{"inline without attributes", "pieces", func(i []byte) { le.PutUint32(i[0x20:], flagInline) }, ErrMalformed},
		{"inline folder", "boot", func(i []byte) { le.PutUint32(i[0x20:], flagInline); i[4] = 2; i[5] = 0 }, ErrMalformed},
		{"block map of junk", "pieces", func(i []byte) { le.PutUint32(i[0x20:], 0) }, ErrMalformed},
		{"a device", "pieces", func(i []byte) { i[1] = 0x21 }, ErrKind},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			image := golden(t, "extents")
			test.damage(inodeAt(t, image, test.file))
			f, err := Open(bytes.NewReader(image))
			require.NoError(t, err)
			if test.file == "boot" {
				_, err = f.List(test.file)
			} else {
				_, err = f.Open(test.file)
			}
			require.ErrorIs(t, err, test.kind)
		})
	}
}

// An index block that points to itself would have a file of 2^40 blocks read
// for ever; a budget ends it.
func TestEndlessBlockMap(t *testing.T) {
	image := golden(t, "blockmap")
	i := inodeAt(t, image, "pieces")
	le := binary.LittleEndian
	block := uint32(100)
	p := image[block*1024:][:1024]
	for k := 0; k < len(p); k += 4 {
		le.PutUint32(p[k:], block)
	}
	for k := 12; k < 15; k++ {
		le.PutUint32(i[0x28+4*k:], block)
	}
	le.PutUint32(i[0x6c:], 1<<10)
	f, err := Open(bytes.NewReader(image))
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = f.Open("pieces")
	runtime.ReadMemStats(&after)
	require.Error(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
}

func TestCutShort(t *testing.T) {
	image := golden(t, "extents")
	for n := 0; n < len(image); n += 4096 {
		f, err := Open(bytes.NewReader(image[:n]))
		if err != nil {
			continue
		}
		r, err := f.Open("boot/vmlinuz-6.1.0-9-amd64")
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err != nil {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
	}
}
