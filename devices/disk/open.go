package disk

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/disk/qcow2"
)

// Why an image is not opened.
var (
	// ErrFormat is an image whose format is not known.
	ErrFormat = errors.New("unknown image format")
	// ErrBacking is a backing file that cannot be used.
	ErrBacking = errors.New("cannot use the backing file")
)

// maxChain bounds how many backing files follow each other.
const maxChain = 200

// foreign formats, by what they begin with. A guest would see their headers, and
// destroy them.
var foreign = []struct{ magic, name string }{
	{"KDMV", "VMDK"}, {"vhdxfile", "VHDX"}, {"QED\x00", "QED"}, {"conectix", "VPC"}, {"<<< ", "VDI"},
}

// Open opens a disk. Its errors name the file.
//
// Without a format, an image with qcow2's magic is qcow2, which is logged, one of a
// format that husk does not have is refused, and any other is raw. In the last
// case the guest cannot write a qcow2 header (ErrMagic), so no raw image
// becomes qcow2 by what a guest does.
func Open(spec Spec, log *slog.Logger) (*Disk, error) {
	if spec.Cache == "" {
		spec.Cache = Writeback
	}
	d := &Disk{spec: spec, readOnly: spec.ReadOnly, log: log}
	o := opener{cache: spec.Cache, punch: spec.Discard, unlocked: spec.Unlocked, log: log}
	var err error
	d.backend, err = o.open(spec.File, spec.Format, spec.Writes())
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	d.topology = topologyOf(d.backend)
	d.spec.Format = formatOf(d.backend)
	if spec.Snapshot {
		if d.backend, err = newOverlay(d.backend, log); err != nil {
			return nil, fmt.Errorf("disk: overlay for %s: %w", spec.File, err)
		}
		d.topology.DiscardGranularity = topologyOf(d.backend).DiscardGranularity
	}
	d.size = d.backend.Size()
	return d, nil
}

// Lock takes the locks that Open would take on a disk's own image, and holds them
// until it is closed: for who has another machine open it, whose locks this host
// does not see.
func Lock(spec Spec, log *slog.Logger) (io.Closer, error) {
	f, err := openFile(spec.File, spec.Writes(), Writeback)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	if err := f.lock(spec.Writes(), log); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("disk: %w", err)
	}
	return f, nil
}

// An opener opens one image and what lies behind it.
type opener struct {
	cache    Cache
	punch    bool
	unlocked bool
	log      *slog.Logger
	chain    []fileID
}

func (o *opener) open(path string, format Format, write bool) (backend, error) {
	f, err := openFile(path, write, o.cache)
	if err != nil {
		return nil, err
	}
	b, err := o.interpret(f, format, write)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// interpret makes a disk of an open file, which it closes when it fails.
func (o *opener) interpret(f *file, format Format, write bool) (_ backend, err error) {
	owned := true
	defer func() {
		if err != nil && owned {
			_ = f.Close()
		}
	}()
	id, err := f.identity()
	if err != nil {
		return nil, err
	}
	if slices.Contains(o.chain, id) {
		return nil, fmt.Errorf("%s: %w: it is, over others, its own backing file", f.path, ErrBacking)
	}
	if o.chain = append(o.chain, id); len(o.chain) > maxChain {
		return nil, fmt.Errorf("%s: %w: more than %d follow each other", f.path, ErrBacking, maxChain)
	}
	if !o.unlocked {
		if err := f.lock(write, o.log); err != nil {
			return nil, err
		}
	}
	guessed := format == Detect
	if guessed {
		if format, err = detect(f); err != nil {
			return nil, err
		}
		if format == Qcow2 {
			o.log.Info("image has a qcow2 header and is taken for that; format=raw or format=qcow2 says it for sure", "file", f.path)
		}
	}
	if format == Raw {
		return newRaw(f, guessed, write, o.log)
	}
	owned = false
	q, err := qcow2.Open(f, qcow2.Options{
		ReadOnly:   !write,
		PunchHoles: o.punch,
		Log:        o.log.With("file", f.path),
		OpenBacking: func(name, format string) (qcow2.Backing, error) {
			return o.openBacking(f.path, name, format)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return q, nil
}

// openBacking opens the file that an image's header names, from the image's folder.
func (o *opener) openBacking(image, name, format string) (qcow2.Backing, error) {
	switch Format(format) {
	case Detect, Raw, Qcow2:
	default:
		return nil, fmt.Errorf("%w: its format %q is neither raw nor qcow2; convert it with: qemu-img convert", ErrBacking, format)
	}
	path := strings.TrimPrefix(name, "file:")
	if i := strings.IndexAny(path, ":/"); i >= 0 && path[i] == ':' {
		return nil, fmt.Errorf("%w: %q is not a file name but one of QEMU's protocols", ErrBacking, name)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(image), path)
	}
	return o.open(path, Format(format), false)
}

// detect tells an image's format by what it begins with.
func detect(f *file) (Format, error) {
	p := make([]byte, sector)
	if err := f.ReadAt([][]byte{p}, 0); err != nil {
		return "", fmt.Errorf("%s: %w", f.path, err)
	}
	if strings.HasPrefix(string(p), qcow2.Magic) {
		return Qcow2, nil
	}
	for _, x := range foreign {
		if strings.HasPrefix(string(p), x.magic) {
			return "", fmt.Errorf("%s: %w: it looks like %s; convert it with: qemu-img convert -O qcow2, or say format=raw", f.path, ErrFormat, x.name)
		}
	}
	return Raw, nil
}

func formatOf(b backend) Format {
	if _, ok := b.(*raw); ok {
		return Raw
	}
	return Qcow2
}

func topologyOf(b backend) Topology {
	switch b := b.(type) {
	case *raw:
		return b.topology()
	case *qcow2.Image:
		n := int(b.ClusterSize())
		return Topology{Logical: sector, Physical: min(n, 4096), OptimalIO: n, DiscardGranularity: n}
	}
	return Topology{Logical: sector, Physical: sector}
}

// topology is a device's own, and for a file that of most file systems.
func (f *file) topology() Topology {
	t := Topology{Logical: sector, Physical: max(4096, int(f.align)), DiscardGranularity: 4096}
	if !f.device {
		return t
	}
	if n, err := unix.IoctlGetInt(f.fd, unix.BLKSSZGET); err == nil {
		t.Logical, t.Physical = n, n
	}
	if n, err := unix.IoctlGetInt(f.fd, unix.BLKPBSZGET); err == nil {
		t.Physical = max(t.Logical, n)
	}
	t.DiscardGranularity = t.Physical
	return t
}
