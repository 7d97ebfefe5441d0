package blk

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("the disk is broken")

// memDisk is a disk in memory. Calls outside of it, or not in whole sectors, are
// mistakes of the device.
type memDisk struct {
	mu      sync.Mutex
	bytes   []byte
	written int // writes since the last flush
	flushes int
	unmaps  int
	discard []extent
	broken  bool

	// gate, if not nil, is what each read waits for; waiting gets a token from
	// each that does.
	gate, waiting chan struct{}
}

func newDisk(sectors int) *memDisk { return &memDisk{bytes: make([]byte, sectors*sectorSize)} }

func (d *memDisk) check(off, n int64) {
	if off < 0 || n <= 0 || off%sectorSize != 0 || n%sectorSize != 0 || off+n > int64(len(d.bytes)) {
		panic("access outside of the disk")
	}
}

func total(segments [][]byte) int64 {
	n := int64(0)
	for _, s := range segments {
		if len(s) == 0 {
			panic("an empty segment")
		}
		n += int64(len(s))
	}
	return n
}

func (d *memDisk) ReadAtV(segments [][]byte, off int64) error {
	if d.gate != nil {
		d.waiting <- struct{}{}
		<-d.gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check(off, total(segments))
	if d.broken {
		return errBroken
	}
	for _, s := range segments {
		off += int64(copy(s, d.bytes[off:]))
	}
	return nil
}

func (d *memDisk) WriteAtV(segments [][]byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check(off, total(segments))
	if d.broken {
		return errBroken
	}
	for _, s := range segments {
		off += int64(copy(d.bytes[off:], s))
	}
	d.written++
	return nil
}

func (d *memDisk) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return errBroken
	}
	d.flushes++
	d.written = 0
	return nil
}

func (d *memDisk) Discard(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check(off, n)
	if d.broken {
		return errBroken
	}
	d.discard = append(d.discard, extent{off, n})
	return nil
}

func (d *memDisk) WriteZeroes(off, n int64, unmap bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.check(off, n)
	if d.broken {
		return errBroken
	}
	if unmap {
		d.unmaps++
	}
	clear(d.bytes[off : off+n])
	return nil
}

const features = virtio.FeatIndirectDesc | virtio.FeatEventIdx |
	featSizeMax | featSegMax | featBlkSize | featFlush | featTopology | featConfigWCE | featMQ | featDiscard | featWriteZeroes

// start returns a driver of a started device. Features that are not offered are
// left out.
func start(t testing.TB, c Config, features uint64) *virtiotest.Driver {
	t.Helper()
	dev, err := New(c)
	require.NoError(t, err)
	d := virtiotest.NewDriver(t, dev, nil)
	d.Start(features & d.Offered())
	return d
}
