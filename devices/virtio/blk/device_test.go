package blk

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

func header(kind uint32, sector uint64) []byte {
	h := make([]byte, headerSize)
	binary.LittleEndian.PutUint32(h, kind)
	binary.LittleEndian.PutUint64(h[8:], sector)
	return h
}

func ranges(rs ...[3]uint64) []byte { // sector, sectors, flags
	var b []byte
	for _, r := range rs {
		b = binary.LittleEndian.AppendUint64(b, r[0])
		b = binary.LittleEndian.AppendUint32(b, uint32(r[1]))
		b = binary.LittleEndian.AppendUint32(b, uint32(r[2]))
	}
	return b
}

// do does a request and returns what came back, with the status.
func do(t testing.TB, d *virtiotest.Driver, room int, out ...[]byte) ([]byte, status) {
	t.Helper()
	var buffers []virtiotest.Buffer
	for _, o := range out {
		buffers = append(buffers, virtiotest.Out(o))
	}
	r := d.Rings[0]
	r.Add(append(buffers, virtiotest.In(room), virtiotest.In(1))...)
	r.Publish()
	q, err := r.Await(d.Context())
	require.NoError(t, err)
	in := r.In(q)
	r.Free(q)
	return in[:room], status(in[room])
}

func read(t testing.TB, d *virtiotest.Driver, sector uint64, n int) []byte {
	t.Helper()
	got, st := do(t, d, n, header(typeIn, sector))
	require.Equal(t, statusOK, st)
	return got
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i) + byte(i>>8)
	}
	return b
}

func TestReadAndWrite(t *testing.T) {
	for _, f := range []uint64{features, features &^ virtio.FeatIndirectDesc, features &^ virtio.FeatEventIdx, 0} {
		disk := newDisk(64)
		d := start(t, Config{Disk: disk, Size: int64(len(disk.bytes))}, f)
		data := pattern(8*sectorSize, 3)
		_, st := do(t, d, 0, header(typeOut, 5), data)
		require.Equal(t, statusOK, st)
		require.Equal(t, data, disk.bytes[5*sectorSize:13*sectorSize])
		require.Equal(t, data, read(t, d, 5, len(data)))
		require.Equal(t, make([]byte, sectorSize), read(t, d, 63, sectorSize))
		require.Empty(t, read(t, d, 64, 0), "nothing, at the end")
	}
}

// TestFramingSaysNothing cuts requests at any place (§2.7.4.1).
func TestFramingSaysNothing(t *testing.T) {
	disk := newDisk(64)
	d := start(t, Config{Disk: disk, Size: int64(len(disk.bytes))}, features)
	r := d.Rings[0]
	rng := rand.New(rand.NewPCG(1, 2))
	cut := func(n int) []int {
		var sizes []int
		for n > 0 {
			k := min(n, rng.IntN(700)) // some are empty
			sizes = append(sizes, k)
			n -= k
		}
		return sizes
	}
	for i := range 100 {
		sector, n := uint64(rng.IntN(60)), (1+rng.IntN(4))*sectorSize
		data := pattern(n, byte(i))
		var buffers []virtiotest.Buffer
		whole := append(header(typeOut, sector), data...)
		for _, k := range cut(len(whole)) {
			buffers = append(buffers, virtiotest.Out(whole[:k]))
			whole = whole[k:]
		}
		got, err := r.Do(d.Context(), append(buffers, virtiotest.In(1))...)
		require.NoError(t, err)
		require.Equal(t, []byte{byte(statusOK)}, got)

		buffers = []virtiotest.Buffer{virtiotest.Out(header(typeIn, sector)[:i%17]), virtiotest.Out(header(typeIn, sector)[i%17:])}
		for _, k := range cut(n + 1) {
			buffers = append(buffers, virtiotest.In(k))
		}
		got, err = r.Do(d.Context(), buffers...)
		require.NoError(t, err)
		require.Equal(t, append(data, byte(statusOK)), got, "all of it was written, with the status")
	}
}

func TestWhatIsNotOfTheDiskIsAnError(t *testing.T) {
	disk := newDisk(64)
	d := start(t, Config{Disk: disk, Size: int64(len(disk.bytes)) + 100, Discard: true}, features)
	for _, c := range []struct {
		sector uint64
		n      int
	}{
		{64, sectorSize},
		{63, 2 * sectorSize},
		{65, 0},
		{1 << 55, sectorSize},
		{^uint64(0), sectorSize},
		{^uint64(0) >> 9, sectorSize},
		{^uint64(0) - 1, 2 * sectorSize},
		{0, 1},
		{0, sectorSize - 1},
		{0, 65 * sectorSize},
	} {
		_, st := do(t, d, c.n, header(typeIn, c.sector))
		require.Equal(t, statusIOErr, st, "read %+v", c)
		_, st = do(t, d, 0, header(typeOut, c.sector), make([]byte, c.n))
		require.Equal(t, statusIOErr, st, "write %+v", c)
	}
	for _, kind := range []uint32{typeDiscard, typeWriteZeroes} {
		for name, data := range map[string][]byte{
			"past the end":  ranges([3]uint64{60, 5, 0}),
			"far outside":   ranges([3]uint64{^uint64(0), 1, 0}),
			"second one":    ranges([3]uint64{0, 1, 0}, [3]uint64{64, 1, 0}),
			"longest":       ranges([3]uint64{0, 0xffffffff, 0}),
			"a part":        ranges([3]uint64{0, 1, 0})[:15],
			"one and a bit": ranges([3]uint64{0, 1, 0}, [3]uint64{0, 1, 0})[:17],
			"too many":      bytes.Repeat(ranges([3]uint64{0, 1, 0}), maxRanges+1),
		} {
			_, st := do(t, d, 0, header(kind, 0), data)
			require.Equal(t, statusIOErr, st, "%d: %s", kind, name)
		}
	}
	require.EqualValues(t, 15, d.State.Status(), "the device goes on")
}

func TestAFailedReadSaysNothingWasWritten(t *testing.T) {
	disk := newDisk(8)
	disk.broken = true
	d := start(t, Config{Disk: disk, Size: int64(len(disk.bytes))}, features)
	got, err := d.Rings[0].Do(d.Context(), virtiotest.Out(header(typeIn, 0)), virtiotest.In(sectorSize), virtiotest.In(1))
	require.NoError(t, err)
	require.Empty(t, got)
	for _, kind := range []uint32{typeOut, typeFlush} {
		out := [][]byte{header(kind, 0), make([]byte, sectorSize)}
		_, st := do(t, d, 0, out...)
		require.Equal(t, statusIOErr, st)
	}
	_, st := do(t, d, 0, header(typeWriteZeroes, 0), ranges([3]uint64{0, 1, 0}))
	require.Equal(t, statusIOErr, st)
	disk.mu.Lock()
	disk.broken = false
	disk.mu.Unlock()
	read(t, d, 0, sectorSize)
}

// TestTheLongestRanges are as long as the driver is told that they may be, which is
// more than a request with data may be.
func TestTheLongestRanges(t *testing.T) {
	const longest = maxRangeSectors
	d := start(t, Config{Disk: nullDisk{}, Size: 8 * longest * sectorSize, Discard: true}, features)
	for kind, field := range map[uint32]int{typeDiscard: cfgMaxDiscardSectors, typeWriteZeroes: cfgMaxZeroesSectors} {
		told := uint64(binary.LittleEndian.Uint32(d.Config(cfgSize)[field:]))
		var all [][3]uint64
		for i := range uint64(maxRanges) {
			all = append(all, [3]uint64{i * told, told, 0})
		}
		_, st := do(t, d, 0, header(kind, 0), ranges(all...))
		require.Equal(t, statusOK, st)
		_, st = do(t, d, 0, header(kind, 0), ranges([3]uint64{0, told + 1, 0}))
		require.Equal(t, statusIOErr, st)
	}
}

func TestDiscardAndWriteZeroes(t *testing.T) {
	disk := newDisk(64)
	copy(disk.bytes, pattern(len(disk.bytes), 1))
	d := start(t, Config{Disk: disk, Size: int64(len(disk.bytes)), Discard: true}, features)
	_, st := do(t, d, 0, header(typeWriteZeroes, 0), ranges([3]uint64{2, 3, 0}, [3]uint64{9, 0, 0}, [3]uint64{10, 1, 1}))
	require.Equal(t, statusOK, st)
	want := pattern(len(disk.bytes), 1)
	clear(want[2*sectorSize : 5*sectorSize])
	clear(want[10*sectorSize : 11*sectorSize])
	require.Equal(t, want, disk.bytes)
	require.Equal(t, 1, disk.unmaps)

	_, st = do(t, d, 0, header(typeDiscard, 0), ranges([3]uint64{7, 8, 0}))
	require.Equal(t, statusOK, st)
	require.Equal(t, []extent{{7 * sectorSize, 8 * sectorSize}}, disk.discard)

	for _, c := range [][2]uint64{{typeDiscard, 1}, {typeDiscard, 2}, {typeWriteZeroes, 2}, {typeWriteZeroes, 1 << 31}} {
		_, st = do(t, d, 0, header(uint32(c[0]), 0), ranges([3]uint64{7, 8, c[1]}))
		require.Equal(t, statusUnsupported, st, "type %d, flags %#x", c[0], c[1])
	}
	require.Len(t, disk.discard, 1)

	d = start(t, Config{Disk: disk, Size: int64(len(disk.bytes))}, features)
	_, st = do(t, d, 0, header(typeDiscard, 0), ranges([3]uint64{7, 8, 0}))
	require.Equal(t, statusUnsupported, st, "not offered")
	_, st = do(t, d, 0, header(typeWriteZeroes, 0), ranges([3]uint64{7, 8, 1}))
	require.Equal(t, statusOK, st)
	require.Equal(t, 1, disk.unmaps, "may not be given up")
}

func TestAReadOnlyDiskIsNotChanged(t *testing.T) {
	disk := newDisk(8)
	d := start(t, Config{Disk: disk, Size: int64(len(disk.bytes)), ReadOnly: true, Discard: true}, features)
	require.NotZero(t, d.Offered()&featRO)
	require.Zero(t, d.Offered()&(featDiscard|featWriteZeroes|featConfigWCE))
	for _, kind := range []uint32{typeOut, typeDiscard, typeWriteZeroes} {
		_, st := do(t, d, 0, header(kind, 0), ranges([3]uint64{0, 1, 0}), make([]byte, sectorSize-rangeSize))
		require.Equal(t, statusIOErr, st)
	}
	require.Zero(t, disk.written)
	require.Equal(t, make([]byte, sectorSize), read(t, d, 0, sectorSize))
}

func TestGetID(t *testing.T) {
	for serial, want := range map[string]string{
		"":                     string(make([]byte, 20)),
		"disk-1":               "disk-1" + string(make([]byte, 14)),
		"12345678901234567890": "12345678901234567890",
	} {
		d := start(t, Config{Disk: newDisk(8), Size: 4096, Serial: serial}, features)
		got, st := do(t, d, 20, header(typeGetID, 0))
		require.Equal(t, statusOK, st)
		require.Equal(t, want, string(got))
		got, st = do(t, d, 3, header(typeGetID, 0))
		require.Equal(t, statusOK, st)
		require.Equal(t, want[:3], string(got))
		got, st = do(t, d, 24, header(typeGetID, 0))
		require.Equal(t, statusOK, st)
		require.Equal(t, want+"\xcc\xcc\xcc\xcc", string(got))
	}
}

func TestTypesThatAreNotKnown(t *testing.T) {
	d := start(t, Config{Disk: newDisk(8), Size: 4096}, features)
	for _, kind := range []uint32{2, 3, 10, 14, 15, 16, 26, 0x80000000, 0xffffffff} {
		_, st := do(t, d, 16, header(kind, 0))
		require.Equal(t, statusUnsupported, st)
	}
}

func TestAChainWithoutHeaderOrStatusNeedsAReset(t *testing.T) {
	for name, buffers := range map[string][]virtiotest.Buffer{
		"short header": {virtiotest.Out(header(typeIn, 0)[:15]), virtiotest.In(1)},
		"no header":    {virtiotest.In(512), virtiotest.In(1)},
		"no status":    {virtiotest.Out(header(typeFlush, 0))},
		"empty status": {virtiotest.Out(header(typeFlush, 0)), virtiotest.In(0)},
	} {
		d := start(t, Config{Disk: newDisk(8), Size: 4096}, features)
		d.Rings[0].Add(buffers...)
		d.Rings[0].Publish()
		<-d.ConfigInterrupt.C()
		require.NotZero(t, d.State.Status()&virtio.StatusNeedsReset, name)
		d.Start(features & d.Offered())
		read(t, d, 0, sectorSize)
	}
}

func TestWritesAreFlushedForADriverThatDoesNot(t *testing.T) {
	disk := newDisk(8)
	c := Config{Disk: disk, Size: 4096}
	write := func(d *virtiotest.Driver) int {
		before := disk.flushes
		_, st := do(t, d, 0, header(typeOut, 0), make([]byte, sectorSize))
		require.Equal(t, statusOK, st)
		return disk.flushes - before
	}
	for _, step := range []struct {
		features  uint64
		writeback byte
		flushes   int
	}{
		{features, 1, 0},
		{features &^ featConfigWCE, 1, 0},
		{features &^ featFlush, 0, 1},
		{features &^ (featFlush | featConfigWCE), 0, 1},
	} {
		d := start(t, c, step.features)
		require.Equal(t, step.writeback, d.Config(cfgSize)[cfgWriteback])
		require.Equal(t, step.flushes, write(d))
		if step.features&featFlush != 0 {
			before := disk.flushes
			_, st := do(t, d, 0, header(typeFlush, 0))
			require.Equal(t, statusOK, st)
			require.Equal(t, before+1, disk.flushes)
		}
	}
	// CONFIG_WCE lets the driver choose, until a reset.
	d := start(t, c, features)
	d.State.StoreConfig(cfgWriteback, []byte{0})
	require.Zero(t, d.Config(cfgSize)[cfgWriteback])
	require.Equal(t, 1, write(d))
	d.State.StoreConfig(0, make([]byte, 8))
	d.State.StoreConfig(cfgMinIOSize, bytes.Repeat([]byte{0xff}, 8))
	require.EqualValues(t, 1, d.Config(cfgSize)[cfgWriteback])
	require.EqualValues(t, 8, d.Config(cfgSize)[cfgCapacity], "the rest stays")
	require.Zero(t, write(d))
	d.State.StoreConfig(cfgWriteback, []byte{0})
	d.Start(features & d.Offered())
	require.Zero(t, write(d), "as at first")
	d.Start(features & d.Offered() &^ featConfigWCE)
	d.State.StoreConfig(cfgWriteback, []byte{0})
	require.Zero(t, write(d), "was not negotiated")
}

func TestConfigurationOfTheDisk(t *testing.T) {
	d := start(t, Config{Disk: newDisk(8), Size: 10<<30 + 511, BlockSize: 512, PhysicalSize: 4096, Queues: 4, Discard: true}, features)
	le := binary.LittleEndian
	p := d.Config(cfgSize)
	require.EqualValues(t, 10<<30/512, le.Uint64(p[0:]))
	require.EqualValues(t, 254, le.Uint32(p[12:]))
	require.EqualValues(t, 512, le.Uint32(p[20:]))
	require.EqualValues(t, 3, p[24], "8 blocks make a physical one")
	require.EqualValues(t, 8, le.Uint16(p[26:]))
	require.EqualValues(t, 4, le.Uint16(p[34:]))
	require.EqualValues(t, 8, le.Uint32(p[44:]))
	require.Len(t, d.Rings, 4)
}

func TestImpossibleConfigurationsAreRefused(t *testing.T) {
	for name, c := range map[string]Config{
		"size":           {Size: -1},
		"block size":     {BlockSize: 513},
		"small block":    {BlockSize: 256},
		"physical":       {BlockSize: 4096, PhysicalSize: 512},
		"queues":         {Queues: 65},
		"depth":          {Depth: -1},
		"serial":         {Serial: "123456789012345678901"},
		"serial's bytes": {Serial: "a\nb"},
	} {
		_, err := New(c)
		require.Error(t, err, name)
	}
}
