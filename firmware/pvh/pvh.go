// Package pvh encodes what a kernel gets that is entered by the PVH boot
// protocol (Xen's public/arch-x86/hvm/start_info.h and the hypervisor document
// "x86/HVM direct boot ABI"): the start info, its list of modules, and its
// memory map. It is pure: values in, bytes out.
package pvh

import (
	"encoding/binary"

	"github.com/huskvm/husk/firmware/e820"
)

// Sizes of the structures, in bytes.
const (
	StartInfoSize = 56
	ModuleSize    = 32
	MemMapSize    = 24 // one entry
)

const (
	magic   = 0x336ec578 // XEN_HVM_START_MAGIC_VALUE: "xEn3" with bit 7 of the E set
	version = 1          // the first version with a memory map
)

// A StartInfo is struct hvm_start_info. Its addresses are guest-physical, and 0
// for what is not there.
type StartInfo struct {
	Modules     uint32 // number of modules at ModuleList; the first is the initramfs
	ModuleList  uint64
	CommandLine uint64 // NUL-terminated
	RSDP        uint64 // ACPI root pointer
	MemMap      uint64
	MemEntries  uint32 // number of entries at MemMap
}

// Append appends the start info, version 1, to b.
func (s StartInfo) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, magic)
	b = le.AppendUint32(b, version)
	b = le.AppendUint32(b, 0) // flags: neither privileged nor the initial domain
	b = le.AppendUint32(b, s.Modules)
	b = le.AppendUint64(b, s.ModuleList)
	b = le.AppendUint64(b, s.CommandLine)
	b = le.AppendUint64(b, s.RSDP)
	b = le.AppendUint64(b, s.MemMap)
	b = le.AppendUint32(b, s.MemEntries)
	return le.AppendUint32(b, 0) // reserved
}

// A Module is struct hvm_modlist_entry without a command line of its own.
type Module struct {
	Addr, Size uint64 // guest-physical, bytes
}

// Append appends the entry to b.
func (m Module) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, m.Addr)
	b = le.AppendUint64(b, m.Size)
	b = le.AppendUint64(b, 0)    // cmdline_paddr
	return le.AppendUint64(b, 0) // reserved
}

// AppendMemMap appends a struct hvm_memmap_table_entry for each entry of m to b.
// XEN_HVM_MEMMAP_TYPE_* are the numbers of E820.
func AppendMemMap(b []byte, m []e820.Entry) []byte {
	le := binary.LittleEndian
	for _, e := range m {
		b = le.AppendUint64(b, e.Addr)
		b = le.AppendUint64(b, e.Size)
		b = le.AppendUint32(b, uint32(e.Type))
		b = le.AppendUint32(b, 0) // reserved
	}
	return b
}
