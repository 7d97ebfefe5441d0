package boot

import (
	"encoding/binary"

	"github.com/bobuhiro11/gokvm/bootparam"
)

// Offsets in struct boot_params (kernel Documentation/arch/x86/zero-page.rst).
const (
	zpRSDP        = 0x070 // acpi_rsdp_addr
	zpE820Entries = 0x1e8 // e820_entries
	zpHeader      = 0x1f1 // hdr, struct setup_header
	zpHeaderEnd   = 0x290 // edd_mbr_sig_buffer: no header reaches here
	zpE820Table   = 0x2d0 // e820_table, packed entries of 20 bytes
)

const (
	loaderUndefined = 0xff   // type_of_loader: none that has a number
	bootFlag        = 0xaa55 // boot_flag
)

// A zeroPage is struct boot_params, which Linux's own boot protocols hand the
// kernel in RSI. What is not set stays zero: the loader places everything below
// 4 GiB, so ext_ramdisk_image, ext_ramdisk_size and ext_cmd_line_ptr do too.
type zeroPage [pageSize]byte

// header is the setup header in the page.
func (z *zeroPage) header() (h bootparam.SetupHeader) {
	// The page is long enough for any header, so this cannot fail.
	_, _ = binary.Decode(z[zpHeader:], binary.LittleEndian, &h)
	return h
}

// setHeader puts h into the page, and leaves alone what is beyond h: fields of
// protocols newer than we know.
func (z *zeroPage) setHeader(h bootparam.SetupHeader) {
	_, _ = binary.Encode(z[zpHeader:], binary.LittleEndian, &h)
}

// setMachine fills in what every kernel is told: where the command line and the
// initramfs are, and what memory there is.
func (z *zeroPage) setMachine(l layout, m Machine) {
	h := z.header()
	h.TypeOfLoader = loaderUndefined
	h.CmdlinePtr = uint32(l.cmdline)
	h.RamdiskImage = uint32(l.initrd.start)
	h.RamdiskSize = uint32(l.initrd.end - l.initrd.start)
	z.setHeader(h)

	z[zpE820Entries] = byte(len(m.MemoryMap)) // at most maxE820
	table := z[zpE820Table:zpE820Table]
	for _, e := range m.MemoryMap {
		table = binary.LittleEndian.AppendUint64(table, e.Addr)
		table = binary.LittleEndian.AppendUint64(table, e.Size)
		table = binary.LittleEndian.AppendUint32(table, uint32(e.Type))
	}
}

// setRSDP tells where ACPI's root pointer is. Kernels that know the field
// (protocol 2.14) need not search for it.
func (z *zeroPage) setRSDP(gpa uint64) {
	binary.LittleEndian.PutUint64(z[zpRSDP:], gpa)
}
