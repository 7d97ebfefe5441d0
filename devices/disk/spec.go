package disk

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrSpec is an option string that cannot be understood.
var ErrSpec = errors.New("bad disk option")

// A Format is how an image is kept in its file.
type Format string

// The formats.
const (
	Detect Format = ""
	Raw    Format = "raw"
	Qcow2  Format = "qcow2"
)

// A Cache says what stands between a write and the disk.
type Cache string

// The cache modes.
const (
	Writeback Cache = "writeback" // the host's page cache, until a flush
	Direct    Cache = "direct"    // nothing but the disk's own cache, until a flush (O_DIRECT)
	Unsafe    Cache = "unsafe"    // the host's page cache; flushes do nothing
)

const (
	maxSerial  = 20  // VIRTIO_BLK_ID_BYTES, virtio 1.2 §5.2.6
	maxIODepth = 256 // a queue of virtio-blk
)

// A Spec is a disk as asked for on the command line.
type Spec struct {
	File     string
	Format   Format
	ReadOnly bool
	Snapshot bool // writes go to a throwaway overlay
	Cache    Cache
	Serial   string // at most 20 bytes, may be empty
	Discard  bool   // give space back that the guest discards
	IODepth  int    // requests of each queue at work at the same time; 0 lets the device choose
	// Unlocked takes no locks: for a file that nobody ever writes to, and that may have
	// locks of another kind. NFS and 9p take all kinds for one.
	Unlocked bool
}

// Writes tells whether what the guest writes goes to the file.
func (s Spec) Writes() bool { return !s.ReadOnly && !s.Snapshot }

// Validate reports what no disk can be asked for, as an ErrSpec.
func (s Spec) Validate() error {
	switch {
	case s.File == "":
		return fmt.Errorf("%w: no file", ErrSpec)
	case s.Format != Detect && s.Format != Raw && s.Format != Qcow2:
		return fmt.Errorf("%w: %s: format %q; use raw or qcow2", ErrSpec, s.File, s.Format)
	case s.Cache != "" && s.Cache != Writeback && s.Cache != Direct && s.Cache != Unsafe:
		return fmt.Errorf("%w: %s: cache %q; use writeback, direct or unsafe", ErrSpec, s.File, s.Cache)
	case s.IODepth < 0 || s.IODepth > maxIODepth:
		return fmt.Errorf("%w: %s: an iodepth of %d; give 1 to %d", ErrSpec, s.File, s.IODepth, maxIODepth)
	}
	return nil
}

// ParseSpec reads
//
//	FILE[,format=raw|qcow2][,ro][,snapshot=on][,cache=writeback|direct|unsafe][,serial=TEXT][,discard=on][,iodepth=N]
//
// A comma in FILE or TEXT is written twice, as in QEMU. Errors are ErrSpec.
func ParseSpec(s string) (Spec, error) {
	words := splitCommas(s)
	spec := Spec{File: words[0], Cache: Writeback}
	fail := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("%w: %q: %s", ErrSpec, s, fmt.Sprintf(format, args...))
	}
	if spec.File == "" {
		return fail("it must begin with the image's file name")
	}
	if strings.IndexByte(spec.File, 0) >= 0 {
		return fail("the file name holds a zero byte")
	}
	seen := map[string]bool{}
	for _, word := range words[1:] {
		key, value, hasValue := strings.Cut(word, "=")
		if seen[key] {
			return fail("%s is given twice", key)
		}
		seen[key] = true
		var err error
		switch key {
		case "format":
			spec.Format, err = oneOf(value, Raw, Qcow2)
		case "cache":
			spec.Cache, err = oneOf(value, Writeback, Direct, Unsafe)
		case "ro":
			spec.ReadOnly, err = onOff(value, hasValue)
		case "snapshot":
			spec.Snapshot, err = onOff(value, hasValue)
		case "discard":
			spec.Discard, err = onOff(value, hasValue)
		case "serial":
			spec.Serial, err = value, checkSerial(value)
		case "iodepth":
			spec.IODepth, err = strconv.Atoi(value)
			if err != nil || spec.IODepth < 1 || spec.IODepth > maxIODepth {
				err = fmt.Errorf("%q is not a number from 1 to %d", value, maxIODepth)
			}
		default:
			return fail("%q is none of format, ro, snapshot, cache, serial, discard, iodepth (a comma in a file name is written twice)", key)
		}
		if err != nil {
			return fail("%s: %v", key, err)
		}
	}
	if spec.ReadOnly && spec.Snapshot {
		return fail("ro and snapshot=on exclude each other")
	}
	return spec, nil
}

// splitCommas cuts s at single commas, and makes one of two.
func splitCommas(s string) []string {
	var words []string
	var word strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != ',':
			word.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == ',':
			word.WriteByte(',')
			i++
		default:
			words = append(words, word.String())
			word.Reset()
		}
	}
	return append(words, word.String())
}

func oneOf[T ~string](value string, allowed ...T) (T, error) {
	names := make([]string, len(allowed))
	for i, a := range allowed {
		if value == string(a) {
			return a, nil
		}
		names[i] = string(a)
	}
	return "", fmt.Errorf("%q is none of %s", value, strings.Join(names, ", "))
}

// onOff reads a switch. Its name alone means on.
func onOff(value string, hasValue bool) (bool, error) {
	switch {
	case !hasValue, value == "on":
		return true, nil
	case value == "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", value)
}

func checkSerial(s string) error {
	if len(s) > maxSerial {
		return fmt.Errorf("%q has %d bytes; a guest can see %d", s, len(s), maxSerial)
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("%q holds more than printable ASCII", s)
		}
	}
	return nil
}
