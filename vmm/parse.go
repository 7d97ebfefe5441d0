package vmm

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/boot"
)

// ParseMemory reads an amount of RAM as people write it: "512M", "5G", "1024"
// (MiB, as in qemu -m), "65536K". The result is in bytes.
func ParseMemory(s string) (uint64, error) {
	digits := strings.TrimRight(s, "kKmMgGtTiIbB")
	shift := uint(20)
	ok := len(digits) == len(s)
	for i, unit := range []string{"k", "m", "g", "t"} {
		switch strings.ToLower(s[len(digits):]) {
		case unit, unit + "b", unit + "ib":
			shift, ok = uint(10*(i+1)), true
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !ok || n > math.MaxUint64>>shift {
		return 0, fmt.Errorf("%w: memory %q is not an amount; write it as 512M or 5G", ErrConfig, s)
	}
	return n << shift, nil
}

// ParseTransport reads the name of a transport; "" is the default.
func ParseTransport(s string) (Transport, error) {
	switch t := Transport(s); t {
	case "":
		return TransportPCI, nil
	case TransportPCI, TransportMMIO:
		return t, nil
	}
	return "", fmt.Errorf("%w: transport %q is unknown; use pci or mmio", ErrConfig, s)
}

// ParseBacking reads the name of a Backing.
func ParseBacking(s string) (Backing, error) {
	switch b := Backing(s); b {
	case BackingTHP, BackingHugeTLB, BackingShared:
		return b, nil
	}
	return "", fmt.Errorf("%w: memory backing %q is unknown; use thp, hugetlb or shared", ErrConfig, s)
}

// ParseCPU reads a processor model: "host,+avx2,-x2apic".
func ParseCPU(s string) (CPU, error) {
	var c CPU
	for i, word := range strings.Split(s, ",") {
		switch {
		case strings.HasPrefix(word, "+"):
			c.Add = append(c.Add, word[1:])
		case strings.HasPrefix(word, "-"):
			c.Remove = append(c.Remove, word[1:])
		case i == 0 && word != "":
			c.Model = word
		default:
			return CPU{}, fmt.Errorf("%w: processor %q: %q is neither a model nor +feature nor -feature; write it as host,+avx2,-x2apic", ErrConfig, s, word)
		}
	}
	if err := c.model().Check(); err != nil {
		return CPU{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return c, nil
}

// OpenSource opens a file to boot from. The Closer is to be called when New
// (or PlanOf) has returned.
func OpenSource(path string) (boot.Source, io.Closer, error) {
	// Without O_NONBLOCK, a FIFO would be waited for, and not refused below.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		var remedy string
		switch {
		case errors.Is(err, os.ErrNotExist):
			remedy = "; check the path"
		case errors.Is(err, os.ErrPermission):
			remedy = "; make it readable, or use a copy that is"
		}
		return boot.Source{}, nil, fmt.Errorf("%w: %w%s", ErrConfig, err, remedy)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s: is a directory; name a file in it", path)
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s: is not a regular file; copy it into one first", path)
	case info.Size() == 0:
		err = fmt.Errorf("%s: is empty; get a whole copy of it", path)
	}
	if err != nil {
		_ = f.Close()
		return boot.Source{}, nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return boot.Source{Name: path, Size: info.Size(), ReaderAt: f}, f, nil
}
