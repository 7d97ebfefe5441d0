package marker_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/marker"
)

var _ devices.Device = (*marker.Port)(nil)

func TestMarks(t *testing.T) {
	var got []byte
	m := marker.New(func(id byte) { got = append(got, id) })
	m.Store(0, []byte{7})
	m.Store(0, []byte{8, 9})
	m.Store(1, []byte{10})
	m.Store(0, nil)
	require.Equal(t, []byte{7, 8}, got)

	p := []byte{0xaa}
	m.Load(0, p)
	require.Equal(t, []byte{0}, p)
}
