package ethernet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeader(t *testing.T) {
	h := Header{1, 4, 0x1122, 0x3344, 0x5566, 0x7788}
	var p [HeaderSize]byte
	h.Put(p[:])
	require.Equal(t, [HeaderSize]byte{1, 4, 0x22, 0x11, 0x44, 0x33, 0x66, 0x55, 0x88, 0x77, 1, 0}, p)
	require.Equal(t, h, ParseHeader(p[:]))
}
