package iovec_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/huskvm/husk/devices/iovec"
)

// split cuts p into a vector; empty slices are part of the game.
func split(t *rapid.T, p []byte) [][]byte {
	var v [][]byte
	for len(p) > 0 {
		n := rapid.IntRange(0, len(p)).Draw(t, "piece")
		v = append(v, p[:n])
		p = p[n:]
	}
	return v
}

func TestVectorsBehaveAsTheirBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")
		v := split(t, bytes.Clone(p))
		require.EqualValues(t, len(p), iovec.Len(v))

		off := rapid.IntRange(0, len(p)).Draw(t, "off")
		n := rapid.IntRange(0, len(p)-off).Draw(t, "n")
		cut := iovec.Slice(v, int64(off), int64(n))
		got := make([]byte, n)
		require.Equal(t, n, iovec.Gather(got, cut))
		require.Equal(t, p[off:off+n], got)

		fill := bytes.Repeat([]byte{0xa5}, n)
		require.Equal(t, n, iovec.Scatter(cut, fill))
		copy(p[off:], fill)
		all := make([]byte, len(p))
		iovec.Gather(all, v)
		require.Equal(t, p, all)

		iovec.Zero(cut)
		clear(p[off : off+n])
		iovec.Gather(all, v)
		require.Equal(t, p, all)
	})
}
