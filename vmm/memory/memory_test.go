package memory_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/vmm/memory"
)

const mib = 1 << 20

func newMemory(t *testing.T, b memory.Backing, ranges ...memory.Range) *memory.Memory {
	t.Helper()
	m, err := memory.New(ranges, b)
	if b == memory.HugeTLB && errors.Is(err, memory.ErrNoMemory) {
		t.Skip("no huge pages reserved")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func TestRegionsAreAlignedOnBothSides(t *testing.T) {
	for _, b := range []memory.Backing{memory.THP, memory.Shared, memory.HugeTLB} {
		m := newMemory(t, b, memory.Range{GPA: 0, Size: 6 * mib}, memory.Range{GPA: 4096 * mib, Size: 2 * mib})
		require.Len(t, m.Regions(), 2)
		for _, r := range m.Regions() {
			require.Zero(t, r.HVA()%memory.HugePage, "backing %d", b)
		}
		start, end := m.HostRange()
		require.EqualValues(t, m.Size(), end-start)
	}
}

func TestReadAndWriteByGuestAddress(t *testing.T) {
	m := newMemory(t, memory.THP, memory.Range{GPA: 0, Size: 2 * mib}, memory.Range{GPA: 4096 * mib, Size: 2 * mib})
	for _, gpa := range []int64{0, 2*mib - 4, 4096 * mib, 4098*mib - 4} {
		_, err := m.WriteAt([]byte("husk"), gpa)
		require.NoError(t, err)
		got := make([]byte, 4)
		_, err = m.ReadAt(got, gpa)
		require.NoError(t, err)
		require.Equal(t, "husk", string(got))
	}
}

func TestOutsideOfRAMIsRefused(t *testing.T) {
	m := newMemory(t, memory.THP, memory.Range{GPA: 0, Size: 2 * mib}, memory.Range{GPA: 2 * mib, Size: 2 * mib}, memory.Range{GPA: 4096 * mib, Size: 2 * mib})
	for _, c := range []struct{ gpa, n uint64 }{
		{4 * mib, 1},              // the hole
		{2*mib - 1, 2},            // across two regions
		{4098 * mib, 1},           // behind the end
		{0, 1 << 63},              // too long
		{4096 * mib, ^uint64(0)},  // length that wraps
		{^uint64(0), 1},           // address that wraps
		{^uint64(0) - 1, 4},       // both
		{4096*mib + 2*mib - 1, 2}, // across the end
	} {
		_, err := m.Readable(c.gpa, c.n)
		require.ErrorIs(t, err, memory.ErrBounds, "%#x+%#x", c.gpa, c.n)
		_, err = m.Writable(c.gpa, c.n)
		require.ErrorIs(t, err, memory.ErrBounds, "%#x+%#x", c.gpa, c.n)
	}
	_, err := m.WriteAt([]byte{1}, -1)
	require.ErrorIs(t, err, memory.ErrBounds)
}

func TestFillReadsAFileIntoRAM(t *testing.T) {
	m := newMemory(t, memory.THP, memory.Range{GPA: 0, Size: 2 * mib})
	src := strings.NewReader("the kernel")
	require.NoError(t, m.Fill(0x1000, src, 4, 6))
	got, err := m.Readable(0x1000, 7)
	require.NoError(t, err)
	require.Equal(t, []byte("kernel\x00"), got)

	require.ErrorIs(t, m.Fill(0, src, 4, 7), io.ErrUnexpectedEOF, "the file is shorter")
	require.ErrorIs(t, m.Fill(2*mib-1, src, 0, 2), memory.ErrBounds)
	require.ErrorIs(t, m.Fill(0, src, 0, -1), memory.ErrBounds)
}

func TestBadRangesAreRefused(t *testing.T) {
	for name, ranges := range map[string][]memory.Range{
		"none":            nil,
		"empty":           {{GPA: 0, Size: 0}},
		"size not 2 MiB":  {{GPA: 0, Size: 3 * mib}},
		"start not 2 MiB": {{GPA: mib, Size: 2 * mib}},
		"overlap":         {{GPA: 0, Size: 4 * mib}, {GPA: 2 * mib, Size: 2 * mib}},
		"too much":        {{GPA: 0, Size: 1 << 62}},
	} {
		_, err := memory.New(ranges, memory.THP)
		require.Error(t, err, name)
	}
}

func TestCloseUnmapsAndClosesTheMemfd(t *testing.T) {
	m, err := memory.New([]memory.Range{{Size: 8 * mib}}, memory.Shared)
	require.NoError(t, err)
	maps, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	require.True(t, bytes.Contains(maps, []byte("memfd:husk-ram")))
	require.NoError(t, m.Close())
	require.NoError(t, m.Close(), "twice is harmless")
	maps, err = os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	require.False(t, bytes.Contains(maps, []byte("memfd:husk-ram")))
}

func TestMoreThanTheHostHasSaysWhatToDo(t *testing.T) {
	for _, backing := range []memory.Backing{memory.THP, memory.Shared} {
		_, err := memory.New([]memory.Range{{Size: 1 << 60}}, backing)
		require.ErrorIs(t, err, memory.ErrNoMemory)
		require.ErrorContains(t, err, "give the guest less memory")
	}
}
