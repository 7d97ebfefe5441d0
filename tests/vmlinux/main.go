// Command vmlinux takes the ELF kernel out of a bzImage, for the tests that boot
// one:
//
//	go run ./tests/vmlinux BZIMAGE VMLINUX
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vmlinux BZIMAGE VMLINUX")
		os.Exit(2)
	}
	if err := extract(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "vmlinux:", err)
		os.Exit(1)
	}
}

func extract(from, to string) error {
	image, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	p, err := payload(image)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	elf, err := unpack(p)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return fmt.Errorf("%s: its payload is no ELF file", from)
	}
	return os.WriteFile(to, elf, 0o644)
}

// payload is the compressed kernel (x86 boot protocol, payload_offset and
// payload_length).
func payload(image []byte) ([]byte, error) {
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" {
		return nil, errors.New("not a bzImage")
	}
	le := binary.LittleEndian
	start := (uint64(image[0x1f1])+1)*512 + uint64(le.Uint32(image[0x248:]))
	end := start + uint64(le.Uint32(image[0x24c:]))
	if end > uint64(len(image)) {
		return nil, errors.New("cut short")
	}
	return image[start:end], nil
}

func unpack(p []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		r, err = gzip.NewReader(bytes.NewReader(p))
	case bytes.HasPrefix(p, []byte("\xfd7zXZ")):
		r, err = xz.NewReader(bytes.NewReader(p), xz.DefaultDictMax)
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err = zstd.NewReader(bytes.NewReader(p))
	case bytes.HasPrefix(p, []byte{0x02, 0x21, 0x4c, 0x18}):
		return unpackLZ4(p[4:])
	default:
		return nil, fmt.Errorf("payload of an unknown compression, % x", p[:min(4, len(p))])
	}
	if err != nil {
		return nil, err
	}
	out := new(bytes.Buffer)
	// The kernel's build puts the unpacked size behind the stream.
	if _, err := io.Copy(out, r); err != nil && out.Len() == 0 {
		return nil, err
	}
	return out.Bytes(), nil
}

// unpackLZ4 reads LZ4's legacy format: blocks of up to 8 MiB, each behind its
// packed size.
func unpackLZ4(p []byte) ([]byte, error) {
	var out []byte
	block := make([]byte, 8<<20)
	for len(p) > 8 { // 4 bytes at the end are the unpacked size
		n := binary.LittleEndian.Uint32(p)
		if uint64(n) > uint64(len(p)-4) {
			return nil, errors.New("cut short")
		}
		got, err := lz4.UncompressBlock(p[4:4+n], block)
		if err != nil {
			return nil, err
		}
		out, p = append(out, block[:got]...), p[4+n:]
	}
	return out, nil
}
