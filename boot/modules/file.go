package modules

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// maxSize bounds an unpacked module in bytes. Distributions' largest (amdgpu,
// i915, with debug information) stay under it.
const maxSize = 256 << 20

// maxRead bounds what is unpacked to resolve modules once, in bytes.
const maxRead = 1 << 30

// Read gives the module as the kernel loads it: an ELF file, unpacked.
func (m Module) Read() ([]byte, error) {
	f, err := m.FS.Open(m.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrModule, m.File, err)
	}
	defer f.Close()
	r, err := unpack(f, m.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrModule, m.File, err)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrModule, m.File, err)
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("%w: %s: more than %d MiB unpacked", ErrModule, m.File, maxSize>>20)
	}
	return b, nil
}

// unpack chooses by the name's end, as modprobe does.
func unpack(r io.Reader, name string) (io.Reader, error) {
	switch suffix(name) {
	case ".ko.xz":
		return xz.NewReader(r, 0)
	case ".ko.zst":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSize))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case ".ko.gz":
		return gzip.NewReader(r)
	}
	return r, nil
}

// depends names the modules that m needs, from its own .modinfo.
func (r *resolver) depends(m Module) ([]string, error) {
	b, err := m.Read()
	if err != nil {
		return nil, err
	}
	if r.left -= int64(len(b)); r.left < 0 {
		return nil, fmt.Errorf("%w: %s: it and what was read before have more than %d MiB", ErrModule, m.File, maxRead>>20)
	}
	info, err := modinfo(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrModule, m.File, err)
	}
	names := dependsOf(info)
	if i := slices.IndexFunc(names, func(n string) bool { return !plain(n) || len(n) > maxName }); i >= 0 {
		return nil, fmt.Errorf("%w: %s: it depends on %+.80q", ErrModule, m.File, names[i])
	}
	return names, nil
}

// modinfo is the section in which a module describes itself: "key=value"
// strings, each ended by NUL (kernel include/linux/moduleparam.h).
func modinfo(b []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("it has no .modinfo section")
	}
	if s.Size > uint64(len(b)) {
		return nil, fmt.Errorf(".modinfo has %d bytes, the file %d", s.Size, len(b))
	}
	return s.Data()
}

// dependsOf reads "depends=a,b,c". The key stands once, and is empty where
// nothing is needed.
func dependsOf(info []byte) []string {
	for _, field := range strings.Split(string(info), "\x00") {
		value, ok := strings.CutPrefix(field, "depends=")
		if !ok {
			continue
		}
		var names []string
		for _, name := range strings.Split(value, ",") {
			if name != "" {
				names = append(names, canonical(name))
			}
		}
		return names
	}
	return nil
}
