// Package acpi builds the tables that tell a guest what the machine has.
// Config goes in, bytes come out; nothing else is touched.
package acpi

import "errors"

// Tables is the block to place in guest memory.
type Tables struct {
	Base uint64 // guest-physical address of Data
	Data []byte
	RSDP uint64 // guest-physical address of the root pointer
}

// Build writes the tables for c. The same c gives the same bytes. Errors wrap
// ErrConfig.
func Build(c Config) (Tables, error) {
	return Tables{}, errors.Join(ErrConfig, errors.ErrUnsupported)
}
