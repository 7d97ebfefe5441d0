package boot

import (
	"bytes"
	"fmt"
	"math/bits"

	"github.com/bobuhiro11/gokvm/bootparam"
)

// The layout of a bzImage (kernel Documentation/arch/x86/boot.rst): a real-mode
// part of some sectors, with the setup header in the first two, then the
// protected-mode kernel.
const (
	sector = 512
	// hdrLength is the offset of the byte that, added to hdrMagic, gives the
	// setup header's end: the target of the jump at 0x200.
	hdrLength = 0x201
	hdrMagic  = 0x202 // "HdrS"
	// hdrEndMin ends the last field of protocol 2.06, cmdline_size.
	hdrEndMin = 0x23c
	// versionMax bounds the version string, in bytes.
	versionMax = 255
)

// Boot protocols that added what we use.
const (
	protocolOldest   = 0x0206 // cmdline_size: Linux 2.6.22
	protocolPayload  = 0x0208 // payload_offset, payload_length
	protocolInitSize = 0x020a // pref_address, init_size
	protocolXload    = 0x020c // xloadflags
	protocolRSDP     = 0x020e // acpi_rsdp_addr in the zero page
)

const (
	xlfKernel64 = 1 << 0 // XLF_KERNEL_64: there is an entry for long mode
	entry64     = 0x200  // its offset in the protected-mode kernel
	// cmdlineDefault is the limit of kernels that state none.
	cmdlineDefault = 255
	// initrdMaxDefault is initrd_addr_max of kernels that state none: the last
	// byte an initramfs may have.
	initrdMaxDefault = 0x37ffffff
)

// A bzImage is Linux's compressed kernel, as distributions install it.
type bzImage struct {
	src     Source
	zero    zeroPage // with the setup header, and nothing else
	hdr     bootparam.SetupHeader
	code    int64 // file offset of the protected-mode kernel
	size    int64 // its size in bytes
	version string
}

// openBzImage parses a file that has a setup header.
func openBzImage(src Source) (*bzImage, error) {
	k := &bzImage{src: src}
	head := make([]byte, min(src.Size, zpHeaderEnd))
	if err := src.read(head, 0, "the setup header"); err != nil {
		return nil, err
	}
	end := int64(hdrMagic) + int64(head[hdrLength])
	if end < hdrEndMin || end > zpHeaderEnd {
		return nil, k.malformed("its setup header ends at %#x", end)
	}
	if err := src.holds(0, end, "the setup header"); err != nil {
		return nil, err
	}
	copy(k.zero[zpHeader:], head[zpHeader:end])
	k.hdr = k.zero.header()
	if err := k.parse(); err != nil {
		return nil, err
	}
	return k, k.readVersion()
}

// parse checks the setup header and fills in what older protocols lack.
func (k *bzImage) parse() error {
	h := &k.hdr
	if h.BootFlag != bootFlag {
		return k.malformed("its boot flag is %#x instead of %#x", h.BootFlag, bootFlag)
	}
	if h.Version < protocolOldest {
		return refuse(k.src.Name, ErrUnsupported, "its boot protocol is %s, older than 2.06; use Linux 2.6.22 or newer", k.protocol())
	}
	if h.LoadFlags&bootparam.LoadedHigh == 0 {
		return refuse(k.src.Name, ErrUnsupported, "it is a zImage, which loads below 1 MiB; build it as a bzImage")
	}
	setup := int64(h.SetupSects)
	if setup == 0 {
		setup = 4 // boot.rst, setup_sects: what the boot sector counted before it had the field
	}
	k.code = (setup + 1) * sector
	k.size = int64(h.SysSize) * 16 // syssize counts paragraphs
	if k.size <= entry64 {
		return k.malformed("its kernel proper has %d bytes", k.size)
	}
	if err := k.src.holds(0, k.code, "the real-mode part"); err != nil {
		return err
	}
	if err := k.src.holds(k.code, k.size, "the kernel proper"); err != nil {
		return err
	}
	if h.Version >= protocolPayload && uint64(h.PayloadOffset)+uint64(h.PayloadLength) > uint64(k.size) {
		return k.malformed("its payload reaches %#x, beyond the kernel proper's %#x bytes",
			uint64(h.PayloadOffset)+uint64(h.PayloadLength), k.size)
	}
	if h.Version < protocolInitSize {
		// The header does not say what memory the kernel unpacks itself to.
		// Kernels of that age grow to less than four times their size.
		h.PrefAddress = uint64(h.Code32Start)
		h.InitSize = uint32(min(4*k.size, fourGiB-1))
	}
	if h.InitSize == 0 || h.PrefAddress < oneMiB || h.PrefAddress >= fourGiB {
		return k.malformed("it wants to run at %#x in %d bytes", h.PrefAddress, h.InitSize)
	}
	if h.RelocatableKernel != 0 && bits.OnesCount32(h.KernelAlignment) != 1 {
		return k.malformed("its alignment of %#x is not a power of two", h.KernelAlignment)
	}
	if h.CmdlineSize == 0 {
		h.CmdlineSize = cmdlineDefault
	}
	if h.InitrdAddrMax == 0 {
		h.InitrdAddrMax = initrdMaxDefault
	}
	return nil
}

func (k *bzImage) malformed(format string, args ...any) error {
	return refuse(k.src.Name, ErrMalformed, "%s; get a good copy of it", fmt.Sprintf(format, args...))
}

// readVersion reads the string that kernel_version points at, 0x200 bytes
// before it. It is for people only, so anything odd in it is dropped.
func (k *bzImage) readVersion() error {
	off := int64(k.hdr.KernelVersion) + 0x200
	if k.hdr.KernelVersion == 0 || off >= k.code {
		return nil
	}
	p := make([]byte, min(versionMax, k.code-off))
	if err := k.src.read(p, off, "the version string"); err != nil {
		return err
	}
	p, _, _ = bytes.Cut(p, []byte{0})
	k.version = string(bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, p))
	return nil
}

// Version is the kernel's release, builder and build time.
func (k *bzImage) Version() string { return k.version }

// Format is "bzImage", the boot protocol and the width of the entry.
func (k *bzImage) Format() string {
	width := "32-bit"
	if k.mode() == Long64 {
		width = "64-bit"
	}
	return fmt.Sprintf("bzImage %s (%s)", k.protocol(), width)
}

func (k *bzImage) protocol() string {
	return fmt.Sprintf("%d.%02d", k.hdr.Version>>8, k.hdr.Version&0xff)
}

func (k *bzImage) mode() Mode {
	if k.hdr.Version >= protocolXload && k.hdr.XloadFlags&xlfKernel64 != 0 {
		return Long64
	}
	return Protected32
}
