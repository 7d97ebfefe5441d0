package pci

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const dev = 1 << 3 // devfn of slot 1

func TestBARMoves(t *testing.T) {
	r := newRig(t)
	var e events
	c := nic(nil)
	e.connect(&c)
	_, err := r.Add(1, 0, c)
	require.NoError(t, err)
	d := r.mmconfig()

	d.setBAR(dev, 0, high+0x8000)
	require.Empty(t, e.take(), "not decoded")
	require.Equal(t, byte(0xff), r.byteAt(high+0x8000))
	d.w16(dev, regCommand, uint16(CommandMemory|CommandBusMaster))
	require.Equal(t, []string{"mapped 0 0x4000008000", "command 0x6"}, e.take())
	require.Equal(t, byte(0x41), r.byteAt(high+0x8000))
	require.Equal(t, byte(0x41), r.byteAt(high+0xbfff))
	require.Equal(t, byte(0xff), r.byteAt(high+0xc000))

	d.w32(dev, regBAR, low) // half of an address
	require.Equal(t, []string{"unmapped 0 0x4000008000"}, e.take()[:1])
	d.w32(dev, regBAR+4, 0)
	require.Equal(t, "mapped 0 0xc0000000", e.take()[0])
	require.Equal(t, byte(0xff), r.byteAt(high+0x8000), "gone from the old place")
	require.Equal(t, byte(0x41), r.byteAt(low))

	d.w16(dev, regCommand, uint16(CommandBusMaster))
	require.Equal(t, []string{"unmapped 0 0xc0000000", "command 0x4"}, e.take())
	require.Equal(t, byte(0xff), r.byteAt(low))
	d.w16(dev, regCommand, uint16(CommandBusMaster))
	require.Empty(t, e.take(), "nothing has changed")
	d.w16(dev, regCommand, 0xffff)
	require.Equal(t, []string{"mapped 0 0xc0000000", "command 0x406"}, e.take(), "no I/O BAR, no I/O bit")
}

// Linux's sizing with decoding on (a guest may) ends where it was.
func TestBARSizedWhileDecoded(t *testing.T) {
	r := newRig(t)
	_, err := r.Add(1, 0, nic(nil))
	require.NoError(t, err)
	d := r.conf1()
	d.setBAR(dev, 0, high)
	d.w16(dev, regCommand, uint16(CommandMemory))
	was := d.r32(dev, regBAR)
	d.w32(dev, regBAR, 0xffffffff)
	require.Equal(t, uint32(0xffffc00c), d.r32(dev, regBAR))
	require.Equal(t, byte(0xff), r.byteAt(high))
	d.w32(dev, regBAR, was)
	require.Equal(t, byte(0x41), r.byteAt(high))
}

func TestIOBAR(t *testing.T) {
	r := newRig(t)
	var e events
	c := Config{Name: "ports", Vendor: 1}
	c.BARs[3] = BAR{Kind: IO, Size: 4, Device: tag(7)}
	e.connect(&c)
	_, err := r.Add(1, 0, c)
	require.NoError(t, err)
	d := r.conf1()
	d.setBAR(dev, 3, 0x1004)
	d.w16(dev, regCommand, 0xffff)
	require.Equal(t, []string{"mapped 3 0x1004", "command 0x405"}, e.take())
	p := make([]byte, 1)
	r.pio.Load(0x1007, p)
	require.Equal(t, byte(7), p[0])
	d.setBAR(dev, 3, 0xcf8) // outside of the window, and taken
	require.Equal(t, []string{"unmapped 3 0x1004"}, e.take())
	require.Equal(t, uint32(0xcf9), d.r32(dev, regBAR+12), "mechanism #1 goes on")
	d.setBAR(dev, 3, 0xfffffffc)
	require.Empty(t, e.take())
}

// A BAR over anything else is refused, and comes when the place is free.
func TestBARRefused(t *testing.T) {
	r := newRig(t)
	var first, second events
	for i, e := range []*events{&first, &second} {
		c := nic(nil)
		c.BARs[0].Device = tag(i + 1)
		e.connect(&c)
		_, err := r.Add(i+1, 0, c)
		require.NoError(t, err)
	}
	d := r.mmconfig()
	const one, two = 1 << 3, 2 << 3
	d.setBAR(one, 0, low)
	d.w16(one, regCommand, uint16(CommandMemory))
	d.setBAR(two, 0, low+0x4000)
	d.w16(two, regCommand, uint16(CommandMemory))
	first.take()
	second.take()

	for name, base := range map[string]uint64{
		"RAM": 0x10_0000, "nothing": 0, "chip": chipBase, "between windows": low + winSize, "below": low - 0x4000,
		"ECAM": ecamBase, "top": 0xffffffff_ffffc000, "other BAR": low + 0x4000,
	} {
		d.setBAR(one, 0, base)
		for _, said := range first.take() {
			require.False(t, strings.HasPrefix(said, "mapped") && strings.HasSuffix(said, fmt.Sprintf(" %#x", base)), name)
		}
		require.Equal(t, byte(2), r.byteAt(low+0x4000), name)
		require.Equal(t, byte(0xcc), r.byteAt(chipBase), name)
		require.Equal(t, uint32(0x00081b36), d.r32(0, 0), name)
		require.Equal(t, uint32(base)|0xc, d.r32(one, regBAR), "the register keeps it")
		require.Empty(t, second.take(), name)
	}
	require.Equal(t, 1, strings.Count(r.log.String(), "\n"), "one line: %s", r.log)
	require.Contains(t, r.log.String(), "device=nic bar=0")

	// Two BARs change places, with decoding on.
	d.setBAR(one, 0, low+0x8000)
	first.take()
	d.setBAR(one, 0, low+0x4000)
	require.Equal(t, []string{"unmapped 0 0xc0008000"}, first.take())
	d.setBAR(two, 0, low+0x8000)
	require.Equal(t, []string{"unmapped 0 0xc0004000", "mapped 0 0xc0008000"}, second.take())
	require.Equal(t, []string{"mapped 0 0xc0004000"}, first.take())
	require.Equal(t, byte(1), r.byteAt(low+0x4000))
	require.Equal(t, byte(2), r.byteAt(low+0x8000))

	// One that waits comes too when the other no longer decodes.
	d.setBAR(one, 0, low+0x8000)
	d.w16(two, regCommand, 0)
	require.Equal(t, byte(1), r.byteAt(low+0x8000))
	d.w16(two, regCommand, uint16(CommandMemory))
	require.Equal(t, byte(1), r.byteAt(low+0x8000), "who came first stays")
}
