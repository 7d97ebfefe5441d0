package paging_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/vmm/paging"
)

var errNoRAM = errors.New("no RAM there")

// plain is RAM from address 0 on.
type plain []byte

func (p plain) Readable(gpa, n uint64) ([]byte, error) {
	if gpa > uint64(len(p)) || n > uint64(len(p))-gpa {
		return nil, errNoRAM
	}
	return p[gpa : gpa+n], nil
}

func (p plain) put64(gpa int, v ...uint64) {
	for i, v := range v {
		binary.LittleEndian.PutUint64(p[gpa+8*i:], v)
	}
}

func (p plain) put32(gpa int, v uint32) { binary.LittleEndian.PutUint32(p[gpa:], v) }

const (
	pg, pse, pae, la57, lma = 1 << 31, 1 << 4, 1 << 5, 1 << 12, 1 << 10

	table = 3        // present, writable
	page  = 3        //
	huge  = 3 | 0x80 // and PS
	nx    = 1 << 63
)

func long(cr4 uint64) paging.Space {
	return paging.Space{CR0: pg, CR3: 0x1000 | 0x18, CR4: pae | cr4, EFER: lma}
}

func TestEveryKindOfPageTable(t *testing.T) {
	ram := make(plain, 1<<20)
	// Long mode: the tables of 0xffffffff81000000 (a 2 MiB page at 0x40000000, and a 4 KiB
	// page behind it), and of 0xffff888000000000 (a 1 GiB page at 0).
	ram.put64(0x1000+511*8, 0x2000|table)
	ram.put64(0x2000+510*8, 0x3000|table)
	ram.put64(0x3000+8*8, 0x40000000|huge|nx, 0x4000|table)
	ram.put64(0x4000, 0x12000|page|nx, 0, 0x13000|page|1<<7) // PAT is where PS would be
	ram.put64(0x1000+273*8, 0x5000|table)
	ram.put64(0x5000, huge)
	// The same one level deeper.
	ram.put64(0x6000+511*8, 0x1000|table)
	// PAE: 0xc0000000 by 2 MiB, 0xc0200000 by 4 KiB. Its root is 32-byte aligned.
	ram.put64(0x7020, 0, 0, 0, 0x8000|1)
	ram.put64(0x8000, 0x1_0000_0000|huge, 0x9000|table)
	ram.put64(0x9000, 0x14000|page)
	// 32 bits: 0x400000 by 4 MiB above 4 GiB, 0x800000 by 4 KiB.
	ram.put32(0xa004, 0x00400000|huge|1<<13)
	ram.put32(0xa008, 0xb000|table)
	ram.put32(0xb004, 0x15000|page)

	five := long(la57)
	five.CR3 = 0x6000
	for _, c := range []struct {
		name      string
		space     paging.Space
		gva       uint64
		gpa, left uint64
		err       error
	}{
		{"no paging", paging.Space{}, 0x123456, 0x123456, 0xbaa, nil},
		{"no paging, beyond 4 GiB", paging.Space{}, 1<<32 + 5, 5, 0xffb, nil},
		{"2 MiB", long(0), 0xffffffff81012345, 0x40012345, 0x1edcbb, nil},
		{"4 KiB", long(0), 0xffffffff81200010, 0x12010, 0xff0, nil},
		{"4 KiB with PAT", long(0), 0xffffffff81202000, 0x13000, 0x1000, nil},
		{"4 KiB, absent", long(0), 0xffffffff81201000, 0, 0, paging.ErrUnmapped},
		{"1 GiB", long(0), 0xffff888000007777, 0x7777, 1<<30 - 0x7777, nil},
		{"not canonical", long(0), 0x7fff888000007777, 0, 0, paging.ErrUnmapped},
		{"user's half, absent", long(0), 0x400000, 0, 0, paging.ErrUnmapped},
		{"five levels", five, 0xffffffff81012345, 0x40012345, 0x1edcbb, nil},
		{"five levels, not canonical", five, 0xfeff888000007777, 0, 0, paging.ErrUnmapped},
		{"PAE 2 MiB", paging.Space{CR0: pg, CR3: 0x7020, CR4: pae}, 0xc0001234, 0x1_0000_1234, 0x1fedcc, nil},
		{"PAE 4 KiB", paging.Space{CR0: pg, CR3: 0x7020, CR4: pae}, 0xc0200001, 0x14001, 0xfff, nil},
		{"PAE, absent", paging.Space{CR0: pg, CR3: 0x7020, CR4: pae}, 0x1000, 0, 0, paging.ErrUnmapped},
		{"4 MiB", paging.Space{CR0: pg, CR3: 0xa000, CR4: pse}, 0x400010, 0x1_0040_0010, 0x3ffff0, nil},
		{"32-bit 4 KiB", paging.Space{CR0: pg, CR3: 0xa000, CR4: pse}, 0x801008, 0x15008, 0xff8, nil},
		{"PS without PSE is a table", paging.Space{CR0: pg, CR3: 0xa000}, 0x400010, 0, 0, errNoRAM},
		{"root out of RAM", paging.Space{CR0: pg, CR3: 1 << 40, CR4: pae, EFER: lma}, 0, 0, 0, errNoRAM},
	} {
		t.Run(c.name, func(t *testing.T) {
			gpa, left, err := c.space.Translate(ram, c.gva)
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.gpa, gpa, "%#x", gpa)
			require.Equal(t, c.left, left, "%#x", left)
		})
	}
}

func TestReadCrossesPagesAndTellsWhereItEnds(t *testing.T) {
	ram := make(plain, 0x10000)
	ram.put64(0x1000, 0x2000|table)
	ram.put64(0x2000, 0x3000|table)
	ram.put64(0x3000, 0x4000|table, 0|huge) // the huge page reaches far beyond RAM
	ram.put64(0x4000, 0x9000|page, 0x7000|page)
	copy(ram[0x9ffc:], "abcd")
	copy(ram[0x7000:], "efgh")

	p := make([]byte, 8)
	n, err := long(0).Read(ram, 0xffc, p)
	require.NoError(t, err)
	require.Equal(t, "abcdefgh", string(p[:n]))

	n, err = long(0).Read(ram, 0x1ffc, p)
	require.ErrorIs(t, err, paging.ErrUnmapped)
	require.Equal(t, 4, n)

	n, err = long(0).Read(ram, 0x200000+0x10000-2, p)
	require.ErrorIs(t, err, errNoRAM)
	require.Equal(t, 2, n)

	n, err = long(0).Read(ram, 0x200000+0x9ffc, p[:4])
	require.NoError(t, err)
	require.Equal(t, "abcd", string(p[:n]))
}

// TestATableThatIsItsOwn: page tables in a circle end where the levels do.
func TestATableThatIsItsOwn(t *testing.T) {
	ram := make(plain, 0x2000)
	for i := range 512 {
		ram.put64(0x1000+8*i, 0x1000|table)
	}
	gpa, _, err := long(la57).Translate(ram, 0x1234)
	require.NoError(t, err)
	require.Equal(t, uint64(0x1234), gpa)
}

func FuzzTranslate(f *testing.F) {
	entries := func(v ...uint64) []byte {
		b := make(plain, 8*len(v))
		b.put64(0, v...)
		return b
	}
	a, b, c := entries(0x2000|table), entries(0x3000|table), entries(0x4000|table, huge)
	f.Add(a, b, c, uint64(pg), uint64(0x1000), uint64(pae), uint64(lma), uint64(0x200010))
	f.Add(a, b, c, uint64(pg), uint64(0x1000), uint64(pae|la57), uint64(lma), uint64(0x10))
	f.Add(a, b, c, uint64(pg), uint64(0x1000), uint64(pae), uint64(0), uint64(0x200010))
	f.Add(a, b, c, uint64(pg), uint64(0x1000), uint64(pse), uint64(0), uint64(0x10))
	f.Fuzz(func(t *testing.T, a, b, c []byte, cr0, cr3, cr4, efer, gva uint64) {
		ram := make(plain, 0x5000)
		copy(ram[0x1000:0x2000], a)
		copy(ram[0x2000:0x3000], b)
		copy(ram[0x3000:0x4000], c)
		s := paging.Space{CR0: cr0, CR3: cr3, CR4: cr4, EFER: efer}
		gpa, left, err := s.Translate(ram, gva)
		if err == nil {
			require.Positive(t, left)
			require.LessOrEqual(t, left, uint64(1<<30))
			require.Less(t, gpa, uint64(1<<52))
			require.Equal(t, gva%4096, gpa%4096)
		}
		p := make([]byte, 10000)
		n, err := s.Read(ram, gva, p)
		require.Equal(t, n < len(p), err != nil)
		require.Equal(t, bytes.Count(p[n:], []byte{0}), len(p)-n)
	})
}
