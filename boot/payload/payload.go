// Package payload unpacks the kernel proper, an ELF file, out of a bzImage. The
// kernel does the same to itself when it starts; done on the host it takes a
// fraction of the time that it takes on a software CPU.
package payload

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// ErrPayload is what every refusal of this package wraps.
var ErrPayload = errors.New("cannot unpack the kernel")

// Offsets of the setup header (kernel Documentation/arch/x86/boot.rst, "The
// Real-Mode Kernel Header").
const (
	hdrSetupSects    = 0x1f1 // sectors of real-mode code after the first
	hdrMagic         = 0x202 // "HdrS"
	hdrVersion       = 0x206 // of the protocol; the payload's place is told since 2.08
	hdrPayloadOffset = 0x248 // from the start of protected-mode code, 32 bits
	hdrPayloadLength = 0x24c // 32 bits
	hdrEnd           = 0x250

	sector = 512
)

// maxUnpacked bounds an unpacked kernel in bytes. With debug information left in
// they have some hundred MiB; distributions' have 50 to 80.
const maxUnpacked = 1 << 30

// Unpack gives the ELF file in a bzImage: packed by gzip, xz, zstd or lz4, or not
// at all. Of other compressions it says which bytes it met.
func Unpack(bzImage []byte) ([]byte, error) {
	packed, size, err := find(bzImage)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	elf, err := unpack(packed, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%w: its payload is not an ELF file", ErrPayload)
	}
	return elf, nil
}

// find gives the packed kernel, and the size that the kernel's build has put
// behind it: 32 bits that are not part of the packed stream.
func find(image []byte) (packed []byte, size int, err error) {
	le := binary.LittleEndian
	if len(image) < hdrEnd || string(image[hdrMagic:hdrMagic+4]) != "HdrS" {
		return nil, 0, errors.New("it is not a bzImage")
	}
	if v := le.Uint16(image[hdrVersion:]); v < 0x208 {
		return nil, 0, fmt.Errorf("boot protocol %d.%02d does not tell where the payload is; 2.08 does", v>>8, v&0xff)
	}
	setup := uint64(image[hdrSetupSects])
	if setup == 0 {
		setup = 4 // as the protocol says
	}
	start := (setup+1)*sector + uint64(le.Uint32(image[hdrPayloadOffset:]))
	end := start + uint64(le.Uint32(image[hdrPayloadLength:]))
	if end > uint64(len(image)) || end-start < 8 {
		return nil, 0, fmt.Errorf("its payload is to end at byte %d, the file ends at %d", end, len(image))
	}
	packed = image[start:end]
	if bytes.HasPrefix(packed, []byte("\x7fELF")) {
		return packed, len(packed), nil
	}
	size = int(le.Uint32(packed[len(packed)-4:]))
	if size > maxUnpacked {
		return nil, 0, fmt.Errorf("its payload is to have %d bytes unpacked; at most %d are allowed", size, maxUnpacked)
	}
	return packed[:len(packed)-4], size, nil
}

// unpack tells the compression by its first bytes (kernel lib/decompress.c).
func unpack(packed []byte, size int) ([]byte, error) {
	var r io.Reader
	var err error
	from := bytes.NewReader(packed)
	switch {
	case bytes.HasPrefix(packed, []byte("\x7fELF")):
		return packed, nil
	case bytes.HasPrefix(packed, []byte{0x02, 0x21, 0x4c, 0x18}):
		return unpackLZ4(packed[4:], size)
	case bytes.HasPrefix(packed, []byte{0x1f, 0x8b}):
		r, err = gzip.NewReader(from)
	case bytes.HasPrefix(packed, []byte("\xfd7zXZ\x00")):
		r, err = xz.NewReader(from, xz.DefaultDictMax)
	case bytes.HasPrefix(packed, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var d *zstd.Decoder
		d, err = zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			defer d.Close()
		}
		r = d
	default:
		return nil, fmt.Errorf("a compression that husk does not know: it starts with % x", packed[:4])
	}
	if err != nil {
		return nil, err
	}
	// What the size claims is not believed before the bytes are there.
	out := new(bytes.Buffer)
	n, err := io.Copy(out, io.LimitReader(r, int64(size)))
	if err == nil && n < int64(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	}
	return out.Bytes(), nil
}

// maxWindow is the largest zstd window that is accepted, in bytes: the kernel is
// packed by "zstd --ultra -22", whose window is 128 MiB.
const maxWindow = 128 << 20

// lz4Block is the most that a block of LZ4's legacy format unpacks to, in bytes.
const lz4Block = 8 << 20

// unpackLZ4 reads LZ4's legacy format: blocks, each behind its packed size in 32
// bits. The library's own reader takes ten times as long.
func unpackLZ4(packed []byte, size int) ([]byte, error) {
	var out []byte
	block := make([]byte, lz4Block)
	for len(packed) >= 4 {
		n := uint64(binary.LittleEndian.Uint32(packed))
		packed = packed[4:]
		if n > uint64(len(packed)) {
			return nil, fmt.Errorf("after %d of %d bytes: %w", len(out), size, io.ErrUnexpectedEOF)
		}
		got, err := lz4.UncompressBlock(packed[:n], block)
		if err != nil {
			return nil, fmt.Errorf("after %d of %d bytes: %w", len(out), size, err)
		}
		if len(out)+got > size {
			return nil, fmt.Errorf("it unpacks to more than the %d bytes it claims", size)
		}
		out, packed = append(out, block[:got]...), packed[n:]
	}
	if len(out) != size {
		return nil, fmt.Errorf("it unpacks to %d bytes and claims %d", len(out), size)
	}
	return out, nil
}
