package pci

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/pci"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// What a step of FuzzRegisters accesses.
const (
	inRegisters = iota
	inVectors
	inConfig
	inWindow // through VIRTIO_PCI_CAP_PCI_CFG
	targets
)

// A step has where, how and on what in four bytes, and a value in eight.
const (
	stepSize  = 12
	stepLoad  = 0x80
	stepPause = 0x40
)

func step(target byte, off uint64, p []byte) []byte {
	s := []byte{byte(off), byte(off >> 8), byte(bits.TrailingZeros(uint(len(p)))), target}
	return append(append(s, p...), make([]byte, 8-len(p))...)
}

// FuzzRegisters stores to and loads from all that a function has, from a running
// device on. Doorbells are bound where the BAR is mapped and nowhere else, and
// who sets all up anew has a device that works.
func FuzzRegisters(f *testing.F) {
	u32 := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
	u16 := func(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
	// What a driver does from reset to reset.
	var seed []byte
	g, r := start(f, mode{})
	r.trace = func(off uint64, p []byte) { seed = append(seed, step(inRegisters, off, p)...) }
	g.Start(virtio.FeatRingReset | virtio.FeatEventIdx)
	g.Say(0, "hello")
	g.ResetQueue(1)
	g.Enable(1, 0)
	r.trace = nil
	f.Add(seed)
	f.Add(seed[len(seed)/stepSize/2*stepSize:])
	f.Add(slices.Concat( // the BAR moves, goes away, and comes back
		step(inConfig, regBAR, u32(0x4000)), step(inConfig, regBAR+4, u32(window>>32)),
		step(inConfig, regCommand, u16(4)), step(inRegisters, notifyAt, u16(0)), step(inConfig, regCommand, u16(6))))
	f.Add(slices.Concat( // INTx with what is in flight
		step(inConfig, uint64(r.msixAt)+2, u16(0)), step(inRegisters, notifyAt, u16(0)), step(inRegisters, isrAt, []byte{0}),
		step(inConfig, uint64(r.msixAt)+2, u16(0xc000)), step(inVectors, 16, u32(lapic)), step(inVectors, 28, u32(0)), step(inConfig, uint64(r.msixAt)+2, u16(0x8000))))
	f.Add(slices.Concat(step(inWindow, 0x14, []byte{0}), step(inWindow, 0x16, u16(1)), step(inWindow, notifyAt, u32(0))))
	f.Add(slices.Concat(step(inRegisters, 0x16, u16(1)), step(inRegisters, 0x3a, u16(1)), step(inRegisters, 0x14, []byte{0x80}), step(inRegisters, 0x14, []byte{0})))
	f.Fuzz(func(t *testing.T, steps []byte) {
		g, r := start(t, mode{})
		g.Rings[0].Add(virtiotest.Out([]byte("x")), virtiotest.In(1)) // waits for somebody to ring
		g.Rings[0].Publish()
		for n := 0; len(steps) >= stepSize && n < 300; n++ {
			off, how, target := uint64(binary.LittleEndian.Uint16(steps)), steps[2], steps[3]%targets
			p := slices.Clone(steps[4 : 4+1<<(how&3)])
			steps = steps[stepSize:]
			access := func(d devices.Device, off uint64) {
				if how&stepLoad != 0 {
					d.Load(off, p)
				} else {
					d.Store(off, p)
				}
			}
			config := configSpace{r}
			switch target {
			case inRegisters:
				access(registers{r.Device}, off%r.layout.bar)
			case inVectors:
				access(r.mmio, msixHome+off%pci.MSIXBarSize(r.vectorCount))
			case inConfig:
				access(config, off%0x100)
			case inWindow:
				r.aim(off, min(len(p), 4))
				access(config, uint64(r.found[capWindow].at+16))
			}
			if how&stepPause != 0 {
				require.NoError(t, r.Pause(g.Context()))
				r.Resume()
			}
			r.checkDoorbells(t)
		}
		r.start()
		r.checkDoorbells(t)
		require.Len(t, r.bells.all(), 2)
		g.Start(virtio.FeatIndirectDesc)
		g.Say(0, "back")
		g.Say(1, "again")
	})
}

// configSpace is the function's, as a devices.Device.
type configSpace struct{ r *rig }

func (c configSpace) Load(off uint64, p []byte)  { c.r.loadConf(int(off), p) }
func (c configSpace) Store(off uint64, p []byte) { c.r.storeConf(int(off), p) }

func (r *rig) checkDoorbells(t testing.TB) {
	want := map[uint64]int{}
	for _, m := range r.mmio.Ranges() {
		if m.Name == "echo BAR 0" {
			want[m.Base+notifyAt], want[m.Base+notifyAt+4] = 0, 1
		}
	}
	require.Equal(t, want, r.bells.all())
}
