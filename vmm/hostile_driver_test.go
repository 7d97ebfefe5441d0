package vmm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// A driver is well-behaved. It is on the machine's buses as a vCPU would be, and
// polls.
type driver struct {
	target
	vm    *VM
	mem   queue.Memory // the device's
	rings rings
	base  uint64 // of its memory
	size  uint64 // of queue 0

	added uint16
}

// newDriver returns one whose memory begins at base. It takes driverMemory bytes.
func newDriver(vm *VM, t target, mem queue.Memory, base uint64) *driver {
	return &driver{target: t, vm: vm, mem: mem, rings: ringsAt(base), base: base}
}

func (d *driver) do(list ...access) {
	for _, x := range list {
		d.vm.do(x)
	}
}

func (d *driver) load(x access) uint64 {
	var b [8]byte
	d.vm.board.mmio.Load(x.addr, b[:x.size])
	return binary.LittleEndian.Uint64(b[:])
}

func (d *driver) get(r register) uint64 { return d.load(d.at(r)) }

// plugIn gives a PCI device its place.
func (d *driver) plugIn() {
	if d.slot != 0 {
		d.do(d.config(0x9a, 2, 0)) // MSI-X
		d.do(d.placeAt(d.target.base, d.tableAt(), commandWorking|commandNoINTx)...)
	}
}

// deviceType is the virtio device's type.
func (d *driver) deviceType() virtio.Type {
	if d.slot == 0 {
		return virtio.Type(d.load(access{addr: d.target.base + 8, size: 4}))
	}
	return virtio.Type(d.load(d.config(2, 2, 0)) - 0x1040)
}

// eventually waits for what a device does in its own time.
func eventually(what string, ok func() bool) error {
	for end := time.Now().Add(deadline); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %v", what, deadline)
		}
	}
	return nil
}

// reset resets the device.
func (d *driver) reset() error {
	d.do(d.set(deviceStatus, 0))
	return eventually("reset", func() bool { return d.get(deviceStatus) == 0 })
}

// start brings the device up with all its queues. Only the first is used.
func (d *driver) start() error {
	if err := d.reset(); err != nil {
		return err
	}
	d.do(d.negotiate(virtio.FeatVersion1)...)
	if status := d.get(deviceStatus); status&virtio.StatusFeaturesOK == 0 {
		return fmt.Errorf("VERSION_1 alone is refused: status %#x", status)
	}
	for i := uint64(0); ; i++ {
		d.do(d.set(queueSelect, i))
		size := d.get(queueMax)
		if size == 0 || i == 64 {
			break
		}
		at := d.rings
		if i > 0 { // 16 KiB for each: nobody offers anything there
			at = ringsAt(d.base + 0x4000*(1+i%16))
		} else {
			d.size = min(size, 16)
			size = d.size
		}
		for _, gpa := range []uint64{at.desc, at.driver, at.device} {
			b, err := d.mem.Writable(gpa, 0x1000)
			if err != nil {
				return err
			}
			clear(b)
		}
		d.do(d.enable(i, min(size, 64), at)...)
		if d.get(queueEnable) != 1 {
			return fmt.Errorf("queue %d cannot be enabled", i)
		}
	}
	d.added = 0
	d.do(d.driverOK())
	if status := d.get(deviceStatus); status != 15 {
		return fmt.Errorf("status %#x after DRIVER_OK", status)
	}
	return nil
}

// request has the device do one request of out and room for n bytes, which it
// returns.
func (d *driver) request(out []byte, n int) ([]byte, error) {
	outAt, inAt := d.base+0x8_0000, d.base+0xc_0000
	room, err := d.mem.Writable(inAt, uint64(n))
	if err != nil {
		return nil, err
	}
	clear(room)
	to, err := d.mem.Writable(outAt, uint64(len(out)))
	if err != nil {
		return nil, err
	}
	copy(to, out)
	table, _ := d.mem.Writable(d.rings.desc, 0x1000)
	avail, _ := d.mem.Writable(d.rings.driver, 0x1000)
	used, _ := d.mem.Writable(d.rings.device, 0x1000)
	head := uint16(0)
	if len(out) == 0 {
		head = 1
	}
	put := func(i int, gpa uint64, length int, flags uint32) {
		binary.LittleEndian.PutUint64(table[16*i:], gpa)
		binary.LittleEndian.PutUint32(table[16*i+8:], uint32(length))
		binary.LittleEndian.PutUint32(table[16*i+12:], flags)
	}
	put(0, outAt, len(out), descNext|1<<16)
	put(1, inAt, n, descWrite)
	binary.LittleEndian.PutUint16(avail[4+2*uint64(d.added%uint16(d.size)):], head)
	d.added++
	queue.Store16(avail, 2, d.added)
	d.do(d.notify(0))
	if err := eventually("request", func() bool { return queue.Load16(used, 2) == d.added }); err != nil {
		return nil, fmt.Errorf("%w: status %#x", err, d.get(deviceStatus))
	}
	return bytes.Clone(room), nil
}

// block is one request of a block device.
func (d *driver) block(kind uint32, sector uint64, data []byte, n int) ([]byte, error) {
	h := binary.LittleEndian.AppendUint32(nil, kind)
	h = binary.LittleEndian.AppendUint32(h, 0)
	h = binary.LittleEndian.AppendUint64(h, sector)
	in, err := d.request(append(h, data...), n+1)
	if err != nil {
		return nil, err
	}
	if in[n] != 0 {
		return nil, fmt.Errorf("request of type %d for sector %d: status %d", kind, sector, in[n])
	}
	return in[:n], nil
}

const (
	blockRead  = 0
	blockWrite = 1
	blockFlush = 4
)

// readsAs checks what stands on a disk.
func (d *driver) readsAs(want []byte) error {
	const piece = 64 << 10
	for off := 0; off < len(want); off += piece {
		got, err := d.block(blockRead, uint64(off)/512, nil, piece)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want[off:off+piece]) {
			return fmt.Errorf("the disk reads wrong at %#x", off)
		}
	}
	return nil
}

// useDisk writes and reads a disk of size bytes until stop is closed, with a reset
// now and then, and then reads all of it. The disk is zero at first.
func (d *driver) useDisk(size int, random *rand.Rand, stop <-chan struct{}) (requests int, err error) {
	if err := d.start(); err != nil {
		return 0, err
	}
	want := make([]byte, size)
	for {
		select {
		case <-stop:
			return requests, d.readsAs(want)
		default:
		}
		requests++
		at := 512 * random.IntN(size/512)
		part := want[at:min(at+512*(1+random.IntN(16)), size)]
		sector := uint64(at) / 512
		switch random.IntN(20) {
		case 0:
			err = d.start()
		case 1:
			_, err = d.block(blockFlush, 0, nil, 0)
		case 2, 3, 4, 5, 6, 7, 8:
			for i := range part {
				part[i] = byte(random.Uint32())
			}
			_, err = d.block(blockWrite, sector, part, 0)
		default:
			var got []byte
			if got, err = d.block(blockRead, sector, nil, len(part)); err == nil && !bytes.Equal(got, part) {
				err = errors.New("a sector reads wrong")
			}
		}
		if err != nil {
			return requests, fmt.Errorf("request %d, at %#x: %w", requests, at, err)
		}
	}
}
