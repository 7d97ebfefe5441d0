package vhost

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestABI is against Linux' include/uapi/linux/vhost.h and vhost_types.h.
func TestABI(t *testing.T) {
	require.EqualValues(t, 8, unsafe.Sizeof(vringState{}))
	require.EqualValues(t, 4, unsafe.Offsetof(vringState{}.num))
	require.EqualValues(t, 8, unsafe.Sizeof(vringFile{}))
	require.EqualValues(t, 4, unsafe.Offsetof(vringFile{}.fd))
	var a vringAddr
	require.EqualValues(t, 40, unsafe.Sizeof(a))
	require.Equal(t, []uintptr{0, 4, 8, 16, 24, 32}, []uintptr{
		unsafe.Offsetof(a.index), unsafe.Offsetof(a.flags), unsafe.Offsetof(a.desc), unsafe.Offsetof(a.used), unsafe.Offsetof(a.avail), unsafe.Offsetof(a.log),
	})
	var r memoryRegion
	require.EqualValues(t, 32, unsafe.Sizeof(r))
	require.Equal(t, []uintptr{0, 8, 16}, []uintptr{unsafe.Offsetof(r.gpa), unsafe.Offsetof(r.size), unsafe.Offsetof(r.hva)})
	require.EqualValues(t, 8, unsafe.Offsetof(memoryTable{}.regions))

	const read, write = 2, 1 // _IOC_READ, _IOC_WRITE
	request := func(direction, number, size uintptr) uintptr { return direction<<30 | size<<16 | 0xaf<<8 | number }
	for name, pair := range map[string][2]uintptr{
		"GET_FEATURES": {reqGetFeatures, request(read, 0x00, 8)}, "SET_FEATURES": {reqSetFeatures, request(write, 0x00, 8)},
		"SET_OWNER": {reqSetOwner, request(0, 0x01, 0)}, "SET_MEM_TABLE": {reqSetMemTable, request(write, 0x03, 8)},
		"SET_VRING_NUM": {reqSetSize, request(write, 0x10, 8)}, "SET_VRING_ADDR": {reqSetAddress, request(write, 0x11, 40)},
		"SET_VRING_BASE": {reqSetNext, request(write, 0x12, 8)}, "GET_VRING_BASE": {reqGetNext, request(read|write, 0x12, 8)},
		"SET_VRING_KICK": {reqSetKick, request(write, 0x20, 8)}, "SET_VRING_CALL": {reqSetCall, request(write, 0x21, 8)},
		"SET_VRING_ERR": {reqSetError, request(write, 0x22, 8)}, "NET_SET_BACKEND": {reqSetBackend, request(write, 0x30, 8)},
	} {
		require.Equal(t, pair[1], pair[0], name)
	}
}
