package debugexit_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/debugexit"
)

var _ devices.Device = (*debugexit.Port)(nil)

func TestStore(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  uint64
		p    []byte
		want []uint32
	}{
		{"byte", 0, []byte{42}, []uint32{42}},
		{"zero", 0, []byte{0}, []uint32{0}},
		{"word", 0, []byte{0x34, 0x12}, []uint32{0x1234}},
		{"long", 0, []byte{0x78, 0x56, 0x34, 0x12}, []uint32{0x12345678}},
		{"elsewhere", 1, []byte{42}, nil},
		{"too wide", 0, make([]byte, 8), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []uint32
			debugexit.New(func(code uint32) { got = append(got, code) }).Store(tt.off, tt.p)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestLoad(t *testing.T) {
	p := []byte{1, 2, 3, 4}
	debugexit.New(nil).Load(0, p)
	require.Equal(t, make([]byte, 4), p)
}
