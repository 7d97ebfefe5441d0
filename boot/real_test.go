package boot

import (
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
			f, err := os.Open(path)
			require.NoError(t, err)
			defer f.Close()
			st, err := f.Stat()
			require.NoError(t, err)
			src := Source{path, st.Size(), f}
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
			for n := st.Size() / 9; n < st.Size()*9/10; n += st.Size() / 9 {
				_, err := Open(Source{path, n, f})
				require.ErrorIs(t, err, ErrTruncated)
			}
		})
	}
}
