package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/bobuhiro11/gokvm/bootparam"
)

// Open tells the format of a kernel by its first bytes, and parses as much of
// it as says how it is loaded. It keeps s, which Image.Load reads later.
//
// What is refused is wrapped in one of the package's errors, and the message
// says what the file looks like instead.
func Open(s Source) (Image, error) {
	if s.Size <= 0 {
		return nil, refuse(s.Name, ErrNotKernel, "it is empty; give a bzImage (/boot/vmlinuz-…) or a vmlinux")
	}
	head := make([]byte, min(s.Size, sector+sector/2))
	if err := s.read(head, 0, "the first bytes"); errors.Is(err, syscall.EISDIR) {
		return nil, refuse(s.Name, ErrNotKernel, "it is a directory; give the kernel file itself")
	} else if err != nil {
		return nil, err
	}
	switch {
	case isELF(head):
		return asImage(openELF(s))
	case hasSetupHeader(head):
		return asImage(openBzImage(s))
	}
	return nil, refuseUnknown(s, head)
}

// asImage keeps a nil pointer from becoming an Image that is not nil.
func asImage[T Image](k T, err error) (Image, error) {
	if err != nil {
		return nil, err
	}
	return k, nil
}

// hasSetupHeader tells a Linux kernel for x86 by the signature in its first
// sectors.
func hasSetupHeader(head []byte) bool {
	return len(head) >= hdrMagic+4 && binary.LittleEndian.Uint32(head[hdrMagic:]) == bootparam.MagicSignature
}

// Other things that people take for a kernel, by a few bytes at an offset.
var lookalikes = []struct {
	off   int
	magic string
	kind  error
	hint  string
}{
	{0x38, "ARM\x64", ErrArchitecture, "it is a kernel for arm64; use one for x86-64"},
	{0x38, "RSC\x05", ErrArchitecture, "it is a kernel for RISC-V; use one for x86-64"},
	{0x38, "\xcd\x23\x82\x81", ErrArchitecture, "it is a kernel for LoongArch; use one for x86-64"},
	{0x24, "\x18\x28\x6f\x01", ErrArchitecture, "it is a kernel for 32-bit ARM; use one for x86-64"},
	{4, "zimg", ErrArchitecture, "it is an EFI zboot image, which no x86 kernel is; use a bzImage for x86-64"},
	{0, "MZ", ErrNotKernel, "it is an EFI or DOS program without Linux's setup header; take the bzImage out of it"},
	{0, "0707", ErrNotKernel, "it is a cpio archive, which looks like an initramfs; give it with -i, and the kernel with -k"},
	{0, "\x1f\x8b", ErrNotKernel, compressed},
	{0, "\xfd7zXZ\x00", ErrNotKernel, compressed},
	{0, "\x28\xb5\x2f\xfd", ErrNotKernel, compressed},
	{0, "\x02\x21\x4c\x18", ErrNotKernel, compressed},
	{0, "\x04\x22\x4d\x18", ErrNotKernel, compressed},
	{0, "BZh", ErrNotKernel, compressed},
	{0, "\x5d\x00\x00", ErrNotKernel, compressed},
	{0, "\x89LZO", ErrNotKernel, compressed},
}

const compressed = "it is a compressed file; if it is an initramfs, give it with -i, and the kernel with -k; if it is a vmlinux, unpack it first"

// refuseUnknown says what a file is that is no kernel, as well as its first
// bytes tell.
func refuseUnknown(s Source, head []byte) error {
	for _, l := range lookalikes {
		if len(head) > l.off && bytes.HasPrefix(head[l.off:], []byte(l.magic)) {
			return refuse(s.Name, l.kind, "%s", l.hint)
		}
	}
	if s.Size < hdrMagic+4 {
		return refuse(s.Name, ErrNotKernel, "it has only %d bytes; it may be cut short; give a bzImage (/boot/vmlinuz-…) or a vmlinux", s.Size)
	}
	return refuse(s.Name, ErrNotKernel, "it has neither Linux's setup header nor an ELF header; give a bzImage (/boot/vmlinuz-…) or a vmlinux")
}
