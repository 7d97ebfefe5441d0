package blk

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// FuzzRequest gives the device one request: the readable bytes and the room are
// cut by the input. memDisk panics if it is called outside of the disk.
func FuzzRequest(f *testing.F) {
	add := func(kind uint32, sector uint64, data []byte, room uint16) {
		f.Add(append(header(kind, sector), data...), room, byte(5), byte(0))
		f.Add(append(header(kind, sector), data...), room, byte(200), byte(7))
	}
	add(typeIn, 3, nil, sectorSize+1)
	add(typeIn, 7, nil, sectorSize+1)
	add(typeOut, 3, make([]byte, 2*sectorSize), 1)
	add(typeFlush, 0, nil, 1)
	add(typeGetID, 0, nil, 21)
	add(typeDiscard, 0, ranges([3]uint64{1, 2, 0}, [3]uint64{7, 1, 0}), 1)
	add(typeWriteZeroes, 0, ranges([3]uint64{1, 2, 1}), 1)
	f.Fuzz(func(t *testing.T, out []byte, room uint16, cut, flags byte) {
		room %= 2048
		disk := newDisk(8)
		dev, err := New(Config{Disk: disk, Size: 4096, ReadOnly: flags&1 != 0, Discard: flags&2 == 0, Serial: "fuzz"})
		require.NoError(t, err)
		if flags&4 != 0 {
			dev.Negotiated(1 << 32)
		}
		c := &queue.Chain{}
		for n := int(cut) + 1; len(out) > 0; out = out[min(n, len(out)):] {
			c.Out = append(c.Out, out[:min(n, len(out))])
		}
		in := make([]byte, room)
		for rest := in; len(rest) > 0; {
			n := min(int(cut)+1, len(rest))
			c.In = append(c.In, rest[:n])
			rest = rest[n:]
		}
		r, err := parse(c)
		if err != nil {
			require.ErrorIs(t, err, queue.ErrBadChain)
			return
		}
		st, read := dev.do(&r, slog.New(slog.DiscardHandler))
		require.LessOrEqual(t, st, statusUnsupported)
		require.LessOrEqual(t, read, r.room)
		require.EqualValues(t, room-1, r.room)
		r.status[0] = byte(st)
		require.Equal(t, byte(st), in[room-1])
		if flags&1 != 0 {
			require.Zero(t, disk.written)
			require.Empty(t, disk.discard)
		}
	})
}

// FuzzConfig stores and loads anything anywhere in the configuration space.
func FuzzConfig(f *testing.F) {
	f.Add(uint64(cfgWriteback), []byte{0}, uint64(features|virtio.FeatVersion1))
	f.Add(uint64(cfgCapacity), []byte{1, 2, 3, 4, 5, 6, 7, 8}, uint64(0))
	f.Add(uint64(cfgSize-1), []byte{1, 2}, uint64(features))
	f.Add(^uint64(0), []byte{1}, uint64(features))
	f.Fuzz(func(t *testing.T, off uint64, p []byte, accepted uint64) {
		dev, err := New(Config{Disk: newDisk(8), Size: 4096, Discard: true})
		require.NoError(t, err)
		signal := virtiotest.NewSignal()
		d, err := virtio.NewState(virtio.Config{
			Device: dev, ConfigInterrupt: signal, Kicks: []queue.Kick{signal}, Interrupts: []queue.Interrupt{signal},
		})
		require.NoError(t, err)
		d.SetStatus(virtio.StatusAcknowledge | virtio.StatusDriver)
		for i := range uint32(2) {
			d.SetDriverFeatureSelect(i)
			d.SetDriverFeatures(uint32(accepted >> (32 * i)))
		}
		d.SetStatus(virtio.StatusFeaturesOK)
		var before, after [cfgSize]byte
		d.LoadConfig(0, before[:])
		d.StoreConfig(off, p)
		d.LoadConfig(off, make([]byte, len(p)))
		d.LoadConfig(0, after[:])
		require.LessOrEqual(t, after[cfgWriteback], byte(1))
		before[cfgWriteback], after[cfgWriteback] = 0, 0
		require.Equal(t, before, after)
	})
}
