package doctor

import "unsafe"

// addressOf is where mapped memory lies, as KVM wants to know it. mem must come
// from mmap: Go does not move that.
func addressOf(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }
