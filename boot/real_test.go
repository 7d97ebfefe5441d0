package boot

import (
	"debug/elf"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Real kernels: $HUSK_KERNEL, and what make has put under build/kernels.
func TestRealKernels(t *testing.T) {
	paths, err := filepath.Glob("../build/kernels/*/vmlinu[xz]")
	require.NoError(t, err)
	if k := os.Getenv("HUSK_KERNEL"); k != "" {
		paths = append(paths, k)
	}
	if len(paths) == 0 {
		t.Skip("no kernel in $HUSK_KERNEL or build/kernels")
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			src := openSource(t, path)
			img, err := Open(src)
			require.NoError(t, err)
			t.Log(img.Format())
			if v, ok := img.(Versioner); ok {
				t.Log(v.Version())
				require.NotEmpty(t, v.Version())
			}
			for _, mib := range []uint64{128, 512, 3 << 10} {
				m := testMachine()
				m.MemoryMap = ramOf(mib)
				g := newGuest(m.MemoryMap)
				g.quiet = true
				e, err := img.Load(g, m)
				require.NoError(t, err)
				require.NotZero(t, e.RIP)
			}
			m := testMachine()
			m.MemoryMap = ramOf(16)
			_, err = img.Load(newGuest(m.MemoryMap), m)
			require.ErrorIs(t, err, ErrNoRoom)
			t.Log(err)
			for n := src.Size / 9; n < src.Size*9/10; n += src.Size / 9 {
				_, err := Open(Source{path, n, src.ReaderAt})
				require.ErrorIs(t, err, ErrTruncated)
			}
		})
	}
}

// Without its notes a real vmlinux is entered by Linux's own protocol, and not
// taken for a program.
func TestRealKernelsWithoutPVH(t *testing.T) {
	paths, err := filepath.Glob("../build/kernels/*/vmlinux")
	require.NoError(t, err)
	if len(paths) == 0 {
		t.Skip("no vmlinux in build/kernels")
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			src := openSource(t, path)
			src.ReaderAt = withoutNotes(t, src)
			img, err := Open(src)
			require.NoError(t, err)
			require.Equal(t, "ELF vmlinux (64-bit)", img.Format())
		})
	}
}

// openSource opens a file for the time of the test.
func openSource(t *testing.T, path string) Source {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	require.NoError(t, err)
	return Source{path, st.Size(), f}
}

// withoutNotes is a 64-bit ELF file with PT_NULL for each PT_NOTE.
func withoutNotes(t *testing.T, src Source) io.ReaderAt {
	t.Helper()
	head := make([]byte, 4096)
	_, err := src.ReadAt(head, 0)
	require.NoError(t, err)
	phoff, size, n := le(head[32:40]), le(head[54:56]), le(head[56:58])
	for p := phoff; p < phoff+n*size; p += size {
		if elf.ProgType(le(head[p:p+4])) == elf.PT_NOTE {
			clear(head[p : p+4])
		}
	}
	return patched{src.ReaderAt, head}
}

// A patched file has other first bytes.
type patched struct {
	io.ReaderAt
	head []byte
}

func (f patched) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.ReaderAt.ReadAt(p, off)
	if off < int64(len(f.head)) {
		copy(p[:n], f.head[off:])
	}
	return n, err
}
