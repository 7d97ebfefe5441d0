package queue_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio/queue"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

const (
	ram   = 1 << 32 // where pair's memory begins
	next1 = virtiotest.FlagNext
	write = virtiotest.FlagWrite
	indir = virtiotest.FlagIndirect
)

func TestBadChainsAreRefused(t *testing.T) {
	type d = virtiotest.Descriptor
	const table = ram + 8<<20
	good := d{Addr: ram + 1<<20, Len: 16}
	for name, c := range map[string]struct {
		head   uint16
		direct []d
		table  []d
		says   string
	}{
		"head outside":                {head: 4, says: "leads to descriptor 4 of 4"},
		"head far outside":            {head: 0xffff, says: "leads to descriptor 65535"},
		"next outside":                {direct: []d{{Addr: ram, Len: 1, Flags: next1, Next: 4}}, says: "leads to descriptor 4 of 4"},
		"loop on itself":              {direct: []d{{Addr: ram, Len: 1, Flags: next1}}, says: "loop"},
		"loop of two":                 {direct: []d{{Addr: ram, Len: 1, Flags: next1, Next: 1}, {Addr: ram, Len: 1, Flags: next1}}, says: "loop"},
		"loop of empty ones":          {direct: []d{{Flags: next1}}, says: "loop"},
		"readable after writable":     {direct: []d{{Addr: ram, Len: 1, Flags: next1 | write, Next: 1}, good}, says: "device-readable"},
		"address not RAM":             {direct: []d{{Addr: 0x1000, Len: 1}}, says: "not RAM"},
		"length past the end":         {direct: []d{{Addr: ram + 16<<20 - 1, Len: 2}}, says: "not RAM"},
		"address wraps":               {direct: []d{{Addr: ^uint64(0), Len: 2}}, says: "not RAM"},
		"longest length":              {direct: []d{{Addr: ram, Len: 0xffffffff}}, says: "not RAM"},
		"indirect and next":           {direct: []d{{Addr: table, Len: 16, Flags: indir | next1}}, says: "NEXT beside"},
		"empty table":                 {direct: []d{{Addr: table, Flags: indir}}, says: "table of 0 bytes"},
		"table of a part":             {direct: []d{{Addr: table, Len: 24, Flags: indir}}, says: "table of 24 bytes"},
		"table not RAM":               {direct: []d{{Addr: 0, Len: 16, Flags: indir}}, says: "not RAM"},
		"next outside the table":      {direct: []d{{Addr: table, Len: 32, Flags: indir}}, table: []d{{Addr: ram, Len: 1, Flags: next1, Next: 2}}, says: "leads to descriptor 2 of 2"},
		"table in a table":            {direct: []d{{Addr: table, Len: 16, Flags: indir}}, table: []d{{Addr: table, Len: 16, Flags: indir}}, says: "inside another"},
		"loop in a table":             {direct: []d{{Addr: table, Len: 16, Flags: indir}}, table: []d{{Addr: ram, Len: 1, Flags: next1}}, says: "loop"},
		"order across into the table": {direct: []d{{Addr: ram, Len: 1, Flags: next1 | write, Next: 1}, {Addr: table, Len: 16, Flags: indir}}, table: []d{good}, says: "device-readable"},
	} {
		t.Run(name, func(t *testing.T) {
			r, q, mem := pair(t, 4, queue.Features{IndirectDesc: true})
			putTable(mem, table, c.table...)
			for i, d := range c.direct {
				r.SetDescriptor(i, d)
			}
			r.Offer(c.head)
			r.Publish()
			_, ok, err := q.Next()
			require.ErrorIs(t, err, queue.ErrBadChain)
			require.ErrorContains(t, err, c.says)
			require.False(t, ok)
			_, _, again := q.Next()
			require.Equal(t, err, again, "it stays so")
			require.NoError(t, q.Wait(timeout(t)), "Wait leaves it to Next")
			require.Zero(t, q.State().NextAvail)
		})
	}
}

func TestIndirectMustBeNegotiated(t *testing.T) {
	r, q, _ := pair(t, 4, queue.Features{})
	r.Indirect = true
	r.Add(virtiotest.In(1))
	r.Publish()
	_, _, err := q.Next()
	require.ErrorIs(t, err, queue.ErrBadChain)
}

func TestAChainIsAtMost4GiB(t *testing.T) {
	mem := vast{virtiotest.NewMemory(ram, 1<<20)}
	for _, last := range []uint32{16, 17} {
		r := virtiotest.NewRing(mem.Memory, 4, queue.Features{})
		q := open(t, r, mem, queue.Features{})
		r.SetDescriptor(0, virtiotest.Descriptor{Len: 0xfffffff0, Flags: next1, Next: 1})
		r.SetDescriptor(1, virtiotest.Descriptor{Len: last})
		r.Offer(0)
		r.Publish()
		_, ok, err := q.Next()
		if last == 16 {
			require.NoError(t, err)
			require.True(t, ok)
		} else {
			require.ErrorIs(t, err, queue.ErrBadChain)
		}
	}
}

// vast claims to have all RAM there is below its own.
type vast struct{ *virtiotest.Memory }

func (v vast) Readable(gpa, n uint64) ([]byte, error) {
	if gpa < ram {
		return make([]byte, 1), nil
	}
	return v.Memory.Readable(gpa, n)
}

func TestAnIndexTooFarAheadIsRefused(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		for _, ahead := range []uint16{5, 100, 0x8000, 0xffff} {
			r, q, _ := pair(t, 4, f)
			r.SetAvail(ahead)
			_, ok, err := q.Next()
			require.ErrorIs(t, err, queue.ErrBadRing)
			require.False(t, ok)
		}
		// Behind is as bad as far ahead.
		r, q, _ := pair(t, 4, f)
		r.Add(virtiotest.In(1))
		r.Publish()
		q.Push(next(t, q), 0)
		r.SetAvail(0)
		_, _, err := q.Next()
		require.ErrorIs(t, err, queue.ErrBadRing)
	})
}

func TestMoreInFlightThanDescriptorsIsRefused(t *testing.T) {
	r, q, _ := pair(t, 4, queue.Features{})
	r.SetDescriptor(0, virtiotest.Descriptor{Addr: ram, Len: 1})
	for range 4 {
		r.Offer(0) // always the same
		r.Publish()
		next(t, q)
	}
	r.Offer(0)
	r.Publish()
	_, _, err := q.Next()
	require.ErrorIs(t, err, queue.ErrBadRing)
}

func TestImpossiblePlacesAreRefused(t *testing.T) {
	mem := virtiotest.NewMemory(ram, 1<<20)
	good := virtiotest.NewRing(mem, 8, queue.Features{}).State
	for name, change := range map[string]func(s *queue.State){
		"size 0":            func(s *queue.State) { s.Size = 0 },
		"size 3":            func(s *queue.State) { s.Size = 3 },
		"size 65535":        func(s *queue.State) { s.Size = 65535 },
		"descriptors at 8":  func(s *queue.State) { s.Desc += 8 },
		"driver area odd":   func(s *queue.State) { s.Driver++ },
		"device area at 2":  func(s *queue.State) { s.Device += 2 },
		"descriptors at 0":  func(s *queue.State) { s.Desc = 0 },
		"driver area high":  func(s *queue.State) { s.Driver = ^uint64(0) - 1 },
		"device area high":  func(s *queue.State) { s.Device = ^uint64(0) - 3 },
		"table past RAM":    func(s *queue.State) { s.Desc = ram + 1<<20 - 16 },
		"driver area past":  func(s *queue.State) { s.Driver = ram + 1<<20 - 16 },
		"used ring past":    func(s *queue.State) { s.Device = ram + 1<<20 - 64 },
		"size grows past":   func(s *queue.State) { s.Size = 32768; s.Desc = ram + 768<<10 },
		"everything is off": func(s *queue.State) { *s = queue.State{Size: 8} },
	} {
		s := good
		change(&s)
		_, err := queue.New(s, queue.Features{EventIdx: true}, mem, nil, nil)
		require.ErrorIs(t, err, queue.ErrBadRing, name)
	}
	// The very end of RAM is good, at an address that is only even.
	s := good
	s.Driver = ram + 1<<20 - (4 + 2*8 + 2)
	s.Device = ram + 1<<19 - 4
	_, err := queue.New(s, queue.Features{EventIdx: true}, mem, nil, nil)
	require.NoError(t, err)
}

// TestRingsAtOddPlaces has the available ring at an address that is not a
// multiple of 4, and the smallest queue.
func TestRingsAtOddPlaces(t *testing.T) {
	forAll(t, func(t *testing.T, f queue.Features) {
		for _, size := range []int{1, 2} {
			mem := virtiotest.NewMemory(ram, 1<<20)
			r := virtiotest.NewRing(mem, size, f)
			r.State.Driver = ram + 0x8002
			r.Indirect = f.IndirectDesc
			q := open(t, r, mem, f)
			for range 5 {
				r.Add(virtiotest.In(1))
				r.Publish()
				q.Push(next(t, q), 1)
				q.Flush()
				used, err := r.Used()
				require.NoError(t, err)
				require.NotNil(t, used)
			}
		}
	})
}
