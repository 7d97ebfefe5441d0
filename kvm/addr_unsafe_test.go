package kvm_test

import "unsafe"

// addressOf returns where mapped memory lies.
func addressOf(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }
