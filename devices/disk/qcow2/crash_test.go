package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A history is what a guest did, beside the log of what that did to the file.
type history struct {
	m     *model
	start []byte      // the file before
	acked []ack       // flushes that have returned
	wrote [][]written // for each sector
}

// An ack is the disk as it was when a flush returned.
type ack struct {
	at   int // in the log
	disk []byte
}

// A written is bytes that a sector may have from a place of the log on.
type written struct {
	at   int
	data []byte
}

// newHistory begins with the image in f.
func newHistory(t *testing.T, f *memFile, base memBacking) *history {
	h := &history{m: &model{f: f, base: base}, start: bytes.Clone(f.data)}
	f.record = true
	h.m.q = open(t, f, h.m.backing())
	h.m.want = readDisk(t, h.m.q)
	h.wrote = make([][]written, len(h.m.want)/512)
	h.acked = []ack{{0, bytes.Clone(h.m.want)}}
	return h
}

// run does n random things. Some may fail, when the file does.
func (h *history) run(t *testing.T, r *rand.Rand, n int) {
	m := h.m
	for range n {
		sectors := len(m.want) / 512
		first := r.IntN(sectors)
		count := 1 + r.IntN(min(sectors-first, 1+r.IntN(100)))
		off, end := int64(first)*512, int64(first+count)*512
		at := len(m.f.log)
		note := func() {
			for s := first; s < first+count; s++ {
				h.wrote[s] = append(h.wrote[s], written{at, bytes.Clone(m.want[s*512 : s*512+512])})
			}
		}
		var err error
		switch op := r.IntN(8); {
		case op < 4:
			m.seed++
			noise(m.want[off:end], m.seed)
			note()
			err = m.q.WriteAt([][]byte{m.want[off:end]}, off)
		case op == 4:
			clear(m.want[off:end])
			note()
			err = m.q.WriteZeroes(off, end-off, r.IntN(2) == 0)
		case op == 5:
			err = m.q.Discard(off, end-off)
			require.NoError(t, m.q.ReadAt([][]byte{m.want[off:end]}, off))
			note()
		case op == 6:
			if err = m.q.Flush(); err == nil {
				h.acked = append(h.acked, ack{len(m.f.log), bytes.Clone(m.want)})
			}
		default: // tables leave memory without a flush
			err = m.q.ReadAt([][]byte{make([]byte, len(m.want))}, 0)
		}
		if err != nil {
			require.ErrorIs(t, err, syscall.EIO)
			require.NoError(t, m.q.ReadAt([][]byte{m.want[off:end]}, off))
			note()
		}
	}
}

// cut returns the file after a crash at a place of the log: what was synced is
// there, and of the rest some sectors.
func (h *history) cut(r *rand.Rand, at int) []byte {
	data := bytes.Clone(h.start)
	log := h.m.f.log[:at]
	fence := 0
	for i, op := range log {
		if op.data == nil {
			fence = i
		}
	}
	keep := r.IntN(4) // of 3: none, some, most, all
	for i, op := range log {
		if i < fence {
			data = apply(data, op)
			continue
		}
		for n := 0; n < len(op.data); {
			// Up to the next sector of the file.
			piece := min(512-int((op.off+int64(n))%512), len(op.data)-n)
			if r.IntN(3) < keep {
				data = apply(data, fileOp{op.off + int64(n), op.data[n : n+piece]})
			}
			n += piece
		}
	}
	return data
}

// every is the distance between two cuts.
func every() int {
	if testing.Short() {
		return 7
	}
	return 1
}

// verify opens what a crash has left, looks for what a flush had promised, and goes on with it.
func (h *history) verify(t *testing.T, data []byte, at int) {
	v := check(data)
	require.Empty(t, v.errors, "cut at %d of %d", at, len(h.m.f.log))
	i, found := slices.BinarySearchFunc(h.acked, at, func(a ack, at int) int { return a.at - at })
	if !found {
		i--
	}
	last := h.acked[i]
	f := &memFile{data: data}
	q := open(t, f, h.m.backing())
	got := readDisk(t, q)
	for s := range len(got) / 512 {
		sector := got[s*512 : s*512+512]
		ok := bytes.Equal(sector, last.disk[s*512:s*512+512])
		for _, w := range h.wrote[s] {
			ok = ok || w.at >= last.at && w.at <= at && bytes.Equal(sector, w.data)
		}
		require.True(t, ok, "sector %d after a cut at %d of %d: neither what was flushed at %d nor what was written later", s, at, len(h.m.f.log), last.at)
	}
	// The image is good for more.
	require.NoError(t, q.WriteAt([][]byte{bytes.Repeat([]byte{7}, len(got))}, 0))
	require.NoError(t, q.Close())
	require.Empty(t, check(f.data).errors)
}

func TestACrashLosesNothingThatWasFlushed(t *testing.T) {
	for i, o := range variants {
		if o.ClusterBits == 0 || o.ClusterBits == 21 {
			o.ClusterBits = 14 // the same code, and a hundred times the speed
		}
		for _, base := range []memBacking{nil, make(memBacking, 100<<10)} {
			t.Run(fmt.Sprintf("%+v,%d", o, len(base)), func(t *testing.T) {
				t.Parallel()
				noise(base, 5)
				r := rand.New(rand.NewPCG(uint64(i), 7))
				f := newImage(t, 300<<10, o)
				f.punch = i%2 == 0
				h := newHistory(t, f, base)
				h.run(t, r, 60)
				require.NoError(t, h.m.q.Close())
				for at := 0; at <= len(h.m.f.log); at += every() {
					h.verify(t, h.cut(r, at), at)
				}
			})
		}
	}
}

// TestACrashKeepsSnapshots: clusters that a snapshot shares, and compressed
// ones, are replaced by new ones; the old must stay until nothing points to them.
func TestACrashKeepsSnapshots(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("no qemu-img (package qemu-utils)")
	}
	for i, options := range []string{"cluster_size=512", "cluster_size=4k,refcount_bits=8", "compat=0.10,cluster_size=2k"} {
		dir := t.TempDir()
		p := make([]byte, 200<<10)
		noise(p[:100<<10], 1)
		copy(p[100<<10:], bytes.Repeat([]byte("pack me "), 4<<10))
		raw, path := filepath.Join(dir, "raw"), filepath.Join(dir, "disk")
		require.NoError(t, os.WriteFile(raw, p, 0o600))
		for _, args := range [][]string{
			{"convert", "-c", "-O", "qcow2", "-o", options, raw, path},
			{"snapshot", "-c", "one", path},
		} {
			out, err := exec.Command("qemu-img", args...).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		v := check(data)
		require.Empty(t, v.errors)
		require.Zero(t, v.leaks)
		r := rand.New(rand.NewPCG(uint64(i), 13))
		h := newHistory(t, &memFile{data: data, punch: i == 0}, nil)
		require.True(t, bytes.Equal(p, h.m.want))
		h.run(t, r, 60)
		require.NoError(t, h.m.q.Close())
		require.Zero(t, check(h.m.f.data).leaks)
		for at := 0; at <= len(h.m.f.log); at += every() {
			h.verify(t, h.cut(r, at), at)
		}
	}
}

// TestACrashAfterAFailure: a write or a sync fails, the guest goes on, and then
// all ends.
func TestACrashAfterAFailure(t *testing.T) {
	base := make(memBacking, 20<<10)
	noise(base, 5)
	for i, o := range []CreateOptions{{ClusterBits: 9, RefcountBits: 64}, {ClusterBits: 12}} {
		r := rand.New(rand.NewPCG(uint64(i), 11))
		for failAt := 1; ; failAt += every() {
			f := newImage(t, 64<<10, o)
			h := newHistory(t, f, base)
			count := 0
			f.fail = func(fileOp) error {
				if count++; count == failAt {
					return syscall.EIO
				}
				return nil
			}
			h.run(t, rand.New(rand.NewPCG(uint64(i), 12)), 30)
			_ = h.m.q.Close()
			if count < failAt {
				break
			}
			for at := max(0, failAt-2); at < min(failAt+12, len(f.log)+1); at += every() {
				h.verify(t, h.cut(r, at), at)
			}
		}
	}
}

// nearlyFull returns an image whose refcount table has few clusters left to count.
func nearlyFull(t *testing.T) *memFile {
	f := newImage(t, 4<<20, CreateOptions{ClusterBits: 9, RefcountBits: 64})
	q := open(t, f, nil)
	for off := int64(0); off < 1950<<10; off += 10 << 10 {
		require.NoError(t, q.WriteAt([][]byte{bytes.Repeat([]byte{1}, 10<<10)}, off))
	}
	require.NoError(t, q.Close())
	return f
}

func tableOffset(t *testing.T, data []byte) int64 {
	h, err := parseHeader(data)
	require.NoError(t, err)
	return h.refTableOffset
}

func TestACrashWhileTheRefcountTableGrows(t *testing.T) {
	f := nearlyFull(t)
	before := tableOffset(t, f.data)
	h := newHistory(t, f, nil)
	r := rand.New(rand.NewPCG(1, 9))
	for tableOffset(t, f.data) == before {
		h.run(t, r, 1)
	}
	h.run(t, r, 3)
	require.NoError(t, h.m.q.Close())
	require.Zero(t, check(f.data).leaks)
	header := slices.IndexFunc(f.log, func(op fileOp) bool { return op.off == hdrRefTableOffset })
	for at := header - 5; at <= len(f.log); at++ {
		for range max(1, 6-(at-header)*(at-header)) {
			h.verify(t, h.cut(r, at), at)
		}
	}
}

func TestFailuresWhileTheRefcountTableGrows(t *testing.T) {
	full := nearlyFull(t)
	start := tableOffset(t, full.data)
	for failAt := 1; ; failAt += every() {
		f := &memFile{data: bytes.Clone(full.data)}
		q := open(t, f, nil)
		count := 0
		f.fail = func(fileOp) error {
			if count++; count == failAt {
				return syscall.ENOSPC
			}
			return nil
		}
		p := bytes.Repeat([]byte{2}, 200<<10)
		err := q.WriteAt([][]byte{p}, 3<<20)
		require.Empty(t, check(f.data).errors, "failure %d", failAt)
		if err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			err = q.WriteAt([][]byte{p}, 3<<20)
		}
		if err != nil {
			require.ErrorIs(t, q.broken, syscall.ENOSPC, "failure %d", failAt)
		}
		_ = q.Close()
		require.Empty(t, check(f.data).errors, "failure %d", failAt)
		if count < failAt {
			require.NotEqual(t, start, tableOffset(t, f.data))
			break
		}
		q = open(t, f, nil)
		require.NoError(t, q.WriteAt([][]byte{p}, 3<<20), "failure %d", failAt)
		require.NoError(t, q.Close())
		require.Empty(t, check(f.data).errors, "failure %d", failAt)
	}
}

// TestFailuresOfTheFile: every write and every sync fails once. The image stays
// valid whatever fails, what was flushed stays, and when the trouble is over,
// everything works.
func TestFailuresOfTheFile(t *testing.T) {
	for i, o := range []CreateOptions{{ClusterBits: 9, RefcountBits: 64}, {ClusterBits: 12}, {ClusterBits: 9, Version: 2}} {
		for failAt := 1; ; failAt += every() {
			base := make(memBacking, 40<<10)
			noise(base, 6)
			f := newImage(t, 64<<10, o)
			q := open(t, f, base)
			count := 0
			f.fail = func(fileOp) error {
				if count++; count == failAt {
					return syscall.EIO
				}
				return nil
			}
			want := make([]byte, 64<<10)
			copy(want, base)
			failed := failingRun(t, q, want, rand.New(rand.NewPCG(uint64(i), 3)))
			require.True(t, bytes.Equal(want, readDisk(t, q)), "failure %d", failAt)
			v := check(f.data)
			require.Empty(t, v.errors, "failure %d", failAt)
			err := q.Close()
			v = check(f.data)
			require.Empty(t, v.errors, "failure %d", failAt)
			if err == nil {
				require.Zero(t, v.leaks, "failure %d", failAt)
				require.True(t, bytes.Equal(want, readDisk(t, open(t, f, base))), "failure %d", failAt)
			}
			if !failed && err == nil {
				break // nothing fails any more
			}
		}
	}
}

// failingRun writes, zeroes, discards and flushes, and does once more what failed.
func failingRun(t *testing.T, q *Image, want []byte, r *rand.Rand) (failed bool) {
	try := func(f func() error) {
		if err := f(); err != nil {
			require.ErrorIs(t, err, syscall.EIO)
			failed = true
			if err := f(); err != nil { // for good: only what needs new clusters
				require.ErrorIs(t, err, syscall.EIO)
			}
		}
	}
	for i := range 12 {
		off := r.Int64N(int64(len(want))/512) * 512
		n := min(int64(len(want))-off, 512*(1+r.Int64N(40)))
		p := want[off : off+n]
		switch i % 4 {
		case 0, 1:
			noise(p, uint64(i))
			try(func() error { return q.WriteAt([][]byte{p}, off) })
		case 2:
			try(func() error { return q.WriteZeroes(off, n, i%8 == 2) })
			require.NoError(t, q.ReadAt([][]byte{p}, off))
		case 3:
			try(func() error { return q.Discard(off, n) })
			require.NoError(t, q.ReadAt([][]byte{p}, off))
			try(q.Flush)
		}
	}
	return failed
}
