package payload

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"
)

// elf stands for a kernel: it packs well, and is larger than one LZ4 block.
func elf() []byte {
	b := []byte("\x7fELF")
	for len(b) < 9<<20 {
		b = append(b, byte(len(b)>>8), byte(len(b)>>16), 0, 0)
	}
	return b
}

// image makes a bzImage of a payload.
func image(payload []byte) []byte {
	b := make([]byte, 5*sector+64)
	b[hdrSetupSects] = 4
	copy(b[hdrMagic:], "HdrS")
	le := binary.LittleEndian
	le.PutUint16(b[hdrVersion:], 0x20f)
	le.PutUint32(b[hdrPayloadOffset:], 64)
	le.PutUint32(b[hdrPayloadLength:], uint32(len(payload)))
	return append(append(b, payload...), make([]byte, 100)...)
}

// sized puts the unpacked size behind a stream, as the kernel's build does.
func sized(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(packed, uint32(size))
}

func packGzip(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func packZstd(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(b, nil)
}

func packLZ4(t testing.TB, b []byte) []byte {
	out := []byte{0x02, 0x21, 0x4c, 0x18}
	for len(b) > 0 {
		n := min(len(b), lz4Block)
		block := make([]byte, lz4.CompressBlockBound(n))
		got, err := lz4.CompressBlock(b[:n], block, nil)
		require.NoError(t, err)
		out = binary.LittleEndian.AppendUint32(out, uint32(got))
		out, b = append(out, block[:got]...), b[n:]
	}
	return out
}

// packXZ needs the program: no Go library at hand writes what the kernel's
// build does.
func packXZ(t testing.TB, b []byte) []byte {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed")
	}
	cmd := exec.Command("xz", "--check=crc32", "--x86", "--lzma2=preset=1", "-c")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	require.NoError(t, err)
	return out
}

func TestUnpack(t *testing.T) {
	want := elf()
	for _, tt := range []struct {
		name string
		pack func(testing.TB, []byte) []byte
	}{
		{"gzip", packGzip}, {"zstd", packZstd}, {"lz4", packLZ4}, {"xz", packXZ},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Unpack(image(sized(tt.pack(t, want), len(want))))
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		})
	}
	t.Run("not packed", func(t *testing.T) {
		got, err := Unpack(image(want))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	})
}

func TestRefusals(t *testing.T) {
	want := elf()
	whole := image(sized(packLZ4(t, want), len(want)))
	old := bytes.Clone(whole)
	binary.LittleEndian.PutUint16(old[hdrVersion:], 0x206)
	text := sized(packGzip(t, []byte("no kernel")), 9)

	tests := []struct {
		name  string
		image []byte
		text  string
	}{
		{"empty", nil, "not a bzImage"},
		{"another file", make([]byte, 4096), "not a bzImage"},
		{"an old protocol", old, "2.06"},
		{"cut short", whole[:len(whole)/2], "the file ends at"},
		{"a block that lies", image(sized([]byte{0x02, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0x7f, 1}, 100)), "unexpected EOF"},
		{"less than claimed", image(sized(packGzip(t, want), len(want)+1)), "unexpected EOF"},
		{"more than claimed", image(sized(packLZ4(t, want), 100)), "more than"},
		{"too much claimed", image(sized(packGzip(t, want), maxUnpacked+1)), "at most"},
		{"no ELF file", image(text), "not an ELF file"},
		{"unknown", image(sized([]byte("BZh91AY&SY"), 100)), "42 5a 68 39"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Unpack(tt.image)
			require.ErrorIs(t, err, ErrPayload)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

// Debian's kernels, where they have been fetched.
func TestRealKernels(t *testing.T) {
	kernels, err := filepath.Glob("../../build/kernels/*/vmlinuz")
	require.NoError(t, err)
	if len(kernels) == 0 || testing.Short() {
		t.Skip("no kernels: tests/fetch-kernels fetches them")
	}
	for _, kernel := range kernels {
		b, err := os.ReadFile(kernel)
		require.NoError(t, err)
		_, err = Unpack(b)
		require.NoError(t, err, kernel)
	}
}

func FuzzUnpack(f *testing.F) {
	small := append([]byte("\x7fELF"), make([]byte, 1000)...)
	f.Add(image(small))
	f.Add(image(sized(packGzip(f, small), len(small))))
	f.Add(image(sized(packZstd(f, small), len(small))))
	f.Add(image(sized(packLZ4(f, small), len(small))))
	f.Fuzz(func(t *testing.T, b []byte) {
		elf, err := Unpack(b)
		if err == nil {
			require.True(t, bytes.HasPrefix(elf, []byte("\x7fELF")))
		}
	})
}
