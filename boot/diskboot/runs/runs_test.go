package runs

import (
	"bytes"
	"io"
	"math"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestHolesAndPieces(t *testing.T) {
	image := []byte("0123456789abcdef")
	var m Map
	require.NoError(t, m.Add(2, 10, 3)) // abc
	require.NoError(t, m.Add(5, 13, 1)) // d, which continues it
	require.NoError(t, m.Add(8, 0, 2))
	require.Len(t, m.list, 2)
	want := []byte("\x00\x00abcd\x00\x0001\x00\x00")
	f := m.Open(bytes.NewReader(image), int64(len(want)))
	require.NoError(t, iotest.TestReader(f, want))
	for off := range want {
		for n := range len(want) - off {
			p := bytes.Repeat([]byte{0xff}, n)
			k, err := f.ReadAt(p, int64(off))
			require.NoError(t, err)
			require.Equal(t, n, k)
			require.Equal(t, want[off:off+n], p)
		}
	}
}

func TestAnImageThatEndsEarly(t *testing.T) {
	var m Map
	require.NoError(t, m.Add(0, 2, 4))
	p := make([]byte, 4)
	n, err := m.Open(bytes.NewReader([]byte("abcd")), 4).ReadAt(p, 0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, 2, n)
}

func TestImpossibleMaps(t *testing.T) {
	var m Map
	require.NoError(t, m.Add(100, 0, 10))
	require.ErrorIs(t, m.Add(109, 50, 1), ErrMap, "overlap")
	require.ErrorIs(t, m.Add(0, 50, 1), ErrMap, "out of order")
	require.ErrorIs(t, m.Add(200, 50, 0), ErrMap, "empty")
	require.ErrorIs(t, m.Add(math.MaxInt64, 50, 1), ErrMap, "overflow")
	require.ErrorIs(t, m.Add(200, math.MaxInt64, 1), ErrMap, "overflow")
	require.ErrorIs(t, m.Add(200, -1, 1), ErrMap, "negative")
	for i := int64(len(m.list)); i < Max; i++ {
		require.NoError(t, m.Add(200+i, 3*i, 1))
	}
	require.ErrorIs(t, m.Add(1<<40, 0, 1), ErrMap, "too many")
}
