package memory_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/vmm/memory"
)

// resident is how many KiB of m the host has in memory, of its own and of huge
// pages, as /proc/self/smaps has it.
func resident(t *testing.T, m *memory.Memory) (kib int) {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	start, end := m.HostRange()
	inside := false
	for lines := bufio.NewScanner(bytes.NewReader(smaps)); lines.Scan(); {
		var a, b uintptr
		var n int
		line := lines.Text()
		if _, err := fmt.Sscanf(line, "%x-%x ", &a, &b); err == nil {
			inside = a >= start && b <= end
		} else if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err == nil && inside {
			kib += n
		} else if _, err := fmt.Sscanf(line, "Private_Hugetlb: %d kB", &n); err == nil && inside {
			kib += n
		}
	}
	return kib
}

func touch(t *testing.T, m *memory.Memory, gpa, n uint64) {
	t.Helper()
	b, err := m.Writable(gpa, n)
	require.NoError(t, err)
	for i := range b {
		b[i] = 0xa5
	}
}

// wants checks that n bytes at gpa all have one value.
func wants(t *testing.T, m *memory.Memory, gpa, n uint64, value byte) {
	t.Helper()
	b, err := m.Readable(gpa, n)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{value}, int(n)), b, "%#x+%#x", gpa, n)
}

func TestDiscardGivesPagesBack(t *testing.T) {
	for _, backing := range []memory.Backing{memory.THP, memory.Shared} {
		t.Run(fmt.Sprint(backing), func(t *testing.T) {
			const high = 4096 * mib
			m := newMemory(t, backing, memory.Range{GPA: 0, Size: 4 * mib}, memory.Range{GPA: high, Size: 4 * mib})
			for _, r := range m.Regions() {
				touch(t, m, r.GPA, r.Size)
			}
			require.Equal(t, 8*1024, resident(t, m))

			require.NoError(t, m.Discard(0, 2*mib))
			require.Equal(t, 6*1024, resident(t, m))
			require.NoError(t, m.Discard(high+3*mib, 4096))
			require.Equal(t, 6*1024-4, resident(t, m), "one small page of a huge one")
			require.NoError(t, m.Discard(high+3*mib, 4096), "again")
			require.NoError(t, m.Discard(high, 0))
			require.Equal(t, 6*1024-4, resident(t, m))

			wants(t, m, 2*mib, 2*mib, 0xa5)
			wants(t, m, high, 3*mib, 0xa5)
			wants(t, m, high+3*mib, 4096, 0)
			wants(t, m, high+3*mib+4096, mib-4096, 0xa5)
			wants(t, m, 0, 2*mib, 0)

			touch(t, m, 0, 2*mib)
			wants(t, m, 0, 2*mib, 0xa5)
		})
	}
}

func TestDiscardOfHugeTLBTakesWholeHugePages(t *testing.T) {
	m := newMemory(t, memory.HugeTLB, memory.Range{GPA: 0, Size: 6 * mib})
	touch(t, m, 0, 6*mib)
	require.Equal(t, 6*1024, resident(t, m))
	require.NoError(t, m.Discard(4096, 2*mib))
	wants(t, m, 0, 6*mib, 0xa5)
	require.NoError(t, m.Discard(mib, 4*mib))
	require.Equal(t, 4*1024, resident(t, m))
	wants(t, m, 0, 2*mib, 0xa5)
	wants(t, m, 4*mib, 2*mib, 0xa5)
	require.ErrorIs(t, m.Discard(4*mib, 4*mib), memory.ErrBounds)
}

func TestDiscardOfWhatIsNoRAMIsRefused(t *testing.T) {
	m := newMemory(t, memory.THP, memory.Range{GPA: 0, Size: 2 * mib}, memory.Range{GPA: 4096 * mib, Size: 2 * mib})
	touch(t, m, 0, 2*mib)
	touch(t, m, 4096*mib, 2*mib)
	const page = memory.Page
	for _, c := range []struct{ gpa, n uint64 }{
		{2 * mib, page},               // the hole
		{2*mib - page, 2 * page},      // into it
		{4098 * mib, page},            // behind the end
		{^uint64(0) - page + 1, page}, // the last page there is
		{page, ^uint64(0) - page + 1}, // length that wraps
	} {
		require.ErrorIs(t, m.Discard(c.gpa, c.n), memory.ErrBounds, "%#x+%#x", c.gpa, c.n)
	}
	for _, c := range []struct{ gpa, n uint64 }{{1, page}, {0, page - 1}, {512, 512}} {
		require.ErrorIs(t, m.Discard(c.gpa, c.n), memory.ErrAlignment, "%#x+%#x", c.gpa, c.n)
	}
	require.Equal(t, 4*1024, resident(t, m))
}
