package pci

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestINTx(t *testing.T) {
	r := newRig(t)
	s := &sink{}
	f, err := r.Add(9, 0, nic(s))
	require.NoError(t, err)
	const devfn = 9 << 3
	d, line := r.mmconfig(), r.lines[1]
	at := func(want, status bool) {
		t.Helper()
		high, _ := line.level()
		require.Equal(t, want, high)
		require.Equal(t, status, d.r16(devfn, regStatus)&statusInterrupt != 0)
	}
	at(false, false)
	f.SetINTx(true)
	at(true, true)
	f.SetINTx(true)
	f.SetINTx(false)
	at(false, false)
	_, sets := line.level()
	require.Equal(t, 2, sets)

	f.SetINTx(true)
	d.w16(devfn, regCommand, uint16(CommandINTxDisable))
	at(false, true)
	d.w16(devfn, regCommand, 0)
	at(true, true)
	control := d.enumerate()[devfn].capabilities[CapMSIX][0] + 2
	d.w16(devfn, control, msixEnable)
	at(false, true)
	d.w16(devfn, control, 0)
	at(true, true)
	d.w16(devfn, regStatus, 0xffff)
	at(true, true)
	f.Reset()
	at(false, false)
	for i, l := range r.lines {
		if _, sets := l.level(); i != 1 {
			require.Zero(t, sets)
		}
	}

	pinless, err := r.Add(9, 1, Config{Name: "no pin", Vendor: 1})
	require.NoError(t, err)
	pinless.SetINTx(true)
	at(false, false)
	require.Zero(t, d.r16(devfn|1, regStatus))
	require.Zero(t, d.r8(devfn|1, regInterruptLine))
	d.w16(devfn|1, regInterruptLine, 0xffff)
	require.Zero(t, d.r16(devfn|1, regInterruptLine))
}

func TestINTxSwizzle(t *testing.T) {
	for _, tt := range []struct{ slot, pin, want int }{{0, 1, 0}, {1, 1, 1}, {1, 4, 4}, {7, 2, 0}, {31, 1, 7}, {31, 4, 2}} {
		require.Equal(t, tt.want, INTx(tt.slot, uint8(tt.pin), 8))
	}
	require.Zero(t, INTx(31, 4, 1))
}

// Slots 1, 9 and 17 have one input, which is asserted while any of them is.
func TestINTxShared(t *testing.T) {
	r := newRig(t)
	var fs []*Function
	for _, slot := range []int{1, 9, 17} {
		f, err := r.Add(slot, 0, nic(nil))
		require.NoError(t, err)
		fs = append(fs, f)
	}
	line := r.lines[1]
	rapid.Check(t, func(rt *rapid.T) {
		var levels [3]bool
		for range 10 {
			i := rapid.IntRange(0, 2).Draw(rt, "function")
			levels[i] = rapid.Bool().Draw(rt, "level")
			fs[i].SetINTx(levels[i])
			high, _ := line.level()
			require.Equal(rt, levels[0] || levels[1] || levels[2], high)
		}
		for _, f := range fs {
			f.SetINTx(false)
		}
	})
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() {
			for n := range 1000 {
				f.SetINTx(n%2 == 0)
			}
			f.SetINTx(i == 2)
		})
	}
	wg.Wait()
	high, _ := line.level()
	require.True(t, high)
	fs[2].SetINTx(false)
	high, _ = line.level()
	require.False(t, high)
}

// A window as VIRTIO_PCI_CAP_PCI_CFG has one: what its last four bytes are
// depends on the bytes before them.
func TestLiveCapability(t *testing.T) {
	r := newRig(t)
	c := nic(nil)
	var said []string
	c.Capabilities = append(c.Capabilities, Capability{
		ID:       CapVendor,
		Body:     []byte{20, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		Writable: []byte{0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		Live: &Live{
			Off: 14, Size: 4,
			Load: func(body []byte, off int, p []byte) {
				for i := range p {
					p[i] = body[2] + byte(off+i)
				}
				said = append(said, fmt.Sprintf("load bar %d offset %#x length %d: %d+%d",
					body[2], binary.LittleEndian.Uint32(body[6:]), binary.LittleEndian.Uint32(body[10:]), off, len(p)))
				clear(body)
			},
			Store: func(body []byte, off int, p []byte) {
				said = append(said, fmt.Sprintf("store bar %d: %d %x", body[2], off, p))
			},
		},
	})
	f, err := r.Add(1, 0, c)
	require.NoError(t, err)
	for _, d := range []driver{r.conf1(), r.mmconfig()} {
		at := d.enumerate()[dev].capabilities[CapVendor][2]
		said = nil
		d.store(dev, at+4, []byte{4, 0xff, 0xff, 0xff})
		d.w32(dev, at+8, 0x3010)
		d.w32(dev, at+12, 2)
		require.Equal(t, uint32(4), d.r32(dev, at+4))
		require.Equal(t, uint16(0x0504), d.r16(dev, at+16))
		require.Equal(t, uint8(7), d.r8(dev, at+19))
		d.w16(dev, at+18, 0xbeef)
		require.Equal(t, []string{
			"load bar 4 offset 0x3010 length 2: 0+2", "load bar 4 offset 0x3010 length 2: 3+1", "store bar 4: 2 efbe",
		}, said)
		require.Equal(t, uint32(0x3010), d.r32(dev, at+8), "body was a copy")
	}
	// Live bytes in the midst of others: an access is cut.
	said = nil
	p := make([]byte, 8)
	at := r.mmconfig().enumerate()[dev].capabilities[CapVendor][2]
	said = nil
	r.mmconfig().load(dev, at+12, p)
	require.Equal(t, []byte{2, 0, 0, 0, 4, 5, 6, 7}, p)
	require.Len(t, said, 1)
	f.Reset()
	require.Zero(t, r.mmconfig().r32(dev, at+8))
}

func TestLiveBytesInADoubleWord(t *testing.T) {
	r := newRig(t)
	c := Config{Name: "odd", Vendor: 1, Capabilities: []Capability{{
		ID: CapVendor, Body: []byte{1, 2, 3, 4, 5, 6}, Writable: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		Live: &Live{
			Off: 3, Size: 2,
			Load:  func(_ []byte, off int, p []byte) { copy(p, []byte{0xa0, 0xa1}[off:]) },
			Store: func(_ []byte, off int, p []byte) { require.Equal(t, []byte{0x24, 0x25}[off:], p) },
		},
	}}}
	_, err := r.Add(1, 0, c)
	require.NoError(t, err)
	d := r.mmconfig()
	require.Equal(t, uint32(0x06a1a003), d.r32(dev, 0x44))
	d.w32(dev, 0x44, 0x26252423)
	require.Equal(t, uint32(0x26a1a023), d.r32(dev, 0x44))
}

func TestReset(t *testing.T) {
	r, s := newRig(t), &sink{}
	var e events
	c := nic(s)
	e.connect(&c)
	f, err := r.Add(1, 0, c)
	require.NoError(t, err)
	fresh := make([]byte, 256)
	r.mmconfig().load(dev, 0, fresh)
	v := probe(t, r)
	v.setBAR(dev, 0, high)
	v.command(CommandMemory | CommandBusMaster)
	v.control(msixEnable)
	v.message(0, lapic, 1)
	v.mask(0, false)
	f.Trigger(1)
	v.w16(dev, regInterruptLine, 11)
	f.SetINTx(true)
	require.Len(t, e.take(), 3)

	f.Reset()
	require.ElementsMatch(t, []string{"unmapped 0 0x4000000000", "unmapped 2 0x4001000000", "command 0x0"}, e.take())
	require.False(t, f.Trigger(0))
	after := make([]byte, 256)
	v.load(dev, 0, after)
	require.Equal(t, uint32(0x4000000000>>32), binary.LittleEndian.Uint32(after[regBAR+4:]), "kept")
	copy(after[regBAR:], fresh[regBAR:regBAR+24])
	require.Equal(t, fresh, after)

	v.command(CommandMemory | CommandBusMaster)
	require.Equal(t, byte(0x41), r.byteAt(high))
	for i := range 5 {
		require.Zero(t, v.read(i, entryAddress))
		require.Equal(t, uint32(1), v.read(i, entryControl))
		require.False(t, v.pending(i))
	}
	v.control(msixEnable)
	require.Empty(t, s.take())
}

// Only the bits that are said to be writable change, and they do.
func TestWriteMasksAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		c := nic(&sink{})
		body := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(rt, "body")
		writable := rapid.SliceOfN(rapid.Byte(), len(body), len(body)).Draw(rt, "writable")
		c.Capabilities = append(c.Capabilities, Capability{ID: CapVendor, Body: body, Writable: writable})
		_, err := r.Add(1, 0, c)
		require.NoError(rt, err)

		var model, mask [256]byte
		r.mmconfig().load(dev, 0, model[:])
		le := binary.LittleEndian
		le.PutUint16(mask[regCommand:], 0x406)
		le.PutUint64(mask[regBAR:], ^uint64(0x3fff))
		le.PutUint64(mask[regBAR+8:], ^uint64(0xfff))
		mask[regInterruptLine] = 0xff
		caps := r.conf1().enumerate()[dev].capabilities
		copy(mask[caps[CapVendor][2]+2:], writable)
		le.PutUint16(mask[caps[CapMSIX][0]+2:], 0xc000)

		drivers := []driver{r.conf1(), r.mmconfig()}
		for range rapid.IntRange(1, 30).Draw(rt, "writes") {
			n := rapid.SampledFrom([]int{1, 2, 4}).Draw(rt, "width")
			reg := rapid.IntRange(0, 255).Draw(rt, "reg") &^ (n - 1)
			p := rapid.SliceOfN(rapid.Byte(), n, n).Draw(rt, "bytes")
			drivers[rapid.IntRange(0, 1).Draw(rt, "mechanism")].store(dev, reg, p)
			for i, v := range p {
				model[reg+i] = model[reg+i]&^mask[reg+i] | v&mask[reg+i]
			}
		}
		for _, d := range drivers {
			for reg := 0; reg < 256; reg += 4 {
				require.Equal(rt, le.Uint32(model[reg:]), d.r32(dev, reg), "%#x", reg)
			}
		}
	})
}
