package kvm

// SetMmapSize makes mapping the next vCPU ask for size bytes.
func (v *VM) SetMmapSize(size int) { v.mmapSize = size }
