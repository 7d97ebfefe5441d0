// Package devices holds what the guest can touch: one folder a chip, and the
// bus that finds the chip for an address.
//
// A chip sees only its own offsets: it does not know where it is mapped, nor
// whether that is port or memory space. It imports neither kvm nor vmm, so
// every chip is tested with plain calls.
package devices

// A Device answers loads and stores from a vCPU. There is no error: hardware
// has none. An access that a register does not have reads as all ones or is
// dropped.
//
// off is relative to where the device is mapped, in bytes. len(p) is the
// access width, 1, 2, 4 or 8 bytes; p is little-endian, as the guest sees it.
// Load must fill all of p. Both are called from vCPU threads, several at once.
type Device interface {
	Load(off uint64, p []byte)
	Store(off uint64, p []byte)
}

// A Line is an interrupt input of the guest's interrupt controller. A device
// drives it to its level: Set(true) asserts it, Set(false) releases it.
// Set may be called from any goroutine, and must not be called with a lock held
// that Load or Store of another device needs.
type Line interface {
	Set(high bool)
}
