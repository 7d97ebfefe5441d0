package parttable

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	linuxFS = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	esp     = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
)

// sfdisk makes a table on an empty disk by a script of its own language.
func sfdisk(t *testing.T, size int64, script string) []byte {
	t.Helper()
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skipf("no sfdisk here (Debian: fdisk): %v", err)
	}
	image := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, size))
	cmd := exec.Command("sfdisk", "-q", image)
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	disk, err := os.ReadFile(image)
	require.NoError(t, err)
	return disk
}

func read(t *testing.T, disk []byte) *Table {
	t.Helper()
	table, err := Read(bytes.NewReader(disk), int64(len(disk)))
	require.NoError(t, err)
	return table
}

const gptScript = `label: gpt
size=1MiB, type=U, uuid=11111111-2222-4333-8444-555555555555, name="EFI system"
size=4MiB, type=L, uuid=AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE, name="größe", attrs=LegacyBIOSBootable
size=1MiB, type=L, start=20480
`

func wantGPT(start1, start3 int64) []Partition {
	return []Partition{
		{1, start1, 1 << 20, esp, "11111111-2222-4333-8444-555555555555", "EFI system", false},
		{2, start1 + 1<<20, 4 << 20, linuxFS, "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", "größe", true},
		{3, start3, 1 << 20, linuxFS, "", "", false},
	}
}

func TestGPT(t *testing.T) {
	disk := sfdisk(t, 16<<20, gptScript)
	table := read(t, disk)
	require.Equal(t, "gpt", table.Kind)
	require.Empty(t, table.Notes)
	table.Partitions[2].UUID = "" // made up by sfdisk
	require.Equal(t, wantGPT(1<<20, 10<<20), table.Partitions)
}

// resector makes the table of a disk with sectors of 512 bytes one with sectors
// of 4096, at both ends: sfdisk makes those on block devices only.
func resector(disk []byte) []byte {
	const sector = 4096
	le := binary.LittleEndian
	out := make([]byte, len(disk))
	copy(out, disk[:512])
	entries := bytes.Clone(disk[1024:][:16<<10])
	for e := entries; len(e) > 0; e = e[128:] {
		if le.Uint64(e[32:]) != 0 {
			le.PutUint64(e[32:], le.Uint64(e[32:])/8)
			le.PutUint64(e[40:], (le.Uint64(e[40:])+1)/8-1)
		}
	}
	last := uint64(len(disk)/sector - 1)
	for own, start := range map[uint64]uint64{1: 2, last: last - 4} {
		h := out[own*sector:]
		copy(h, disk[512:604])
		le.PutUint64(h[24:], own)
		le.PutUint64(h[72:], start)
		copy(out[start*sector:], entries)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:gptHeader]))
	}
	return out
}

func TestGPTWithLargeSectors(t *testing.T) {
	disk := resector(sfdisk(t, 16<<20, gptScript))
	table := read(t, disk)
	require.Empty(t, table.Notes)
	table.Partitions[2].UUID = ""
	require.Equal(t, wantGPT(1<<20, 10<<20), table.Partitions)
	clear(disk[4096:8192])
	table = read(t, disk)
	require.Len(t, table.Notes, 1)
	table.Partitions[2].UUID = ""
	require.Equal(t, wantGPT(1<<20, 10<<20), table.Partitions)
}

func TestDamagedGPT(t *testing.T) {
	good := sfdisk(t, 16<<20, gptScript)
	for name, damage := range map[string]func(d []byte){
		"header gone":   func(d []byte) { clear(d[512:1024]) },
		"header's sum":  func(d []byte) { d[512+40]++ },
		"entries' sum":  func(d []byte) { d[1024+60]++ },
		"header's size": func(d []byte) { d[512+12] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			disk := bytes.Clone(good)
			damage(disk)
			table := read(t, disk)
			require.Len(t, table.Partitions, 3)
			require.Len(t, table.Notes, 1)
			require.Contains(t, table.Notes[0], "copy at the disk's end")

			_, err := Read(bytes.NewReader(disk[:8<<20]), 8<<20)
			require.ErrorIs(t, err, ErrDamaged, "no copy either")
		})
	}
	longer := append(bytes.Clone(good), make([]byte, 1<<20)...)
	require.Empty(t, read(t, longer).Notes, "a disk that was enlarged")
	short := read(t, good[:11<<20-512])
	require.Len(t, short.Partitions, 3)
	require.EqualValues(t, 1<<20-512, short.Partitions[2].Size)
	require.Contains(t, short.Notes[0], "cut short")
}

// A header may be right by its sum and still ask for too much.
func TestHostileGPT(t *testing.T) {
	good := sfdisk(t, 16<<20, gptScript)
	for name, change := range map[string]func(h []byte){
		"many entries":   func(h []byte) { binary.LittleEndian.PutUint32(h[80:], 1<<31) },
		"large entries":  func(h []byte) { binary.LittleEndian.PutUint32(h[84:], 1<<31) },
		"odd entries":    func(h []byte) { binary.LittleEndian.PutUint32(h[84:], 129) },
		"no entry size":  func(h []byte) { binary.LittleEndian.PutUint32(h[84:], 0) },
		"entries far":    func(h []byte) { binary.LittleEndian.PutUint64(h[72:], 1<<63+5) },
		"another sector": func(h []byte) { h[24]++ },
	} {
		t.Run(name, func(t *testing.T) {
			disk := bytes.Clone(good)
			clear(disk[len(disk)-512:])
			h := disk[512:604]
			change(h)
			clear(h[16:20])
			binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
			_, err := Read(bytes.NewReader(disk), int64(len(disk)))
			require.ErrorIs(t, err, ErrDamaged)
		})
	}
}

const mbrScript = `label: dos
label-id: 0xcafe0001
size=1MiB, type=83, bootable
size=8MiB, type=5
size=1MiB, type=c
size=1MiB, type=82
size=2MiB, type=83
`

func TestMBR(t *testing.T) {
	disk := sfdisk(t, 16<<20, mbrScript)
	table := read(t, disk)
	require.Equal(t, "msdos", table.Kind)
	require.Empty(t, table.Notes)
	const mib = 1 << 20
	require.Equal(t, []Partition{
		{1, mib, mib, "0x83", "cafe0001-01", "", true},
		{3, 10 * mib, mib, "0x0c", "cafe0001-03", "", false},
		{4, 11 * mib, mib, "0x82", "cafe0001-04", "", false},
		{5, 3 * mib, 2 * mib, "0x83", "cafe0001-05", "", false},
	}, table.Partitions)

	// The chain leads back to its beginning.
	ebr := disk[2*mib:][:512]
	copy(ebr[mbrEntry+16:], ebr[mbrEntry:mbrEntry+16])
	ebr[mbrEntry+16+4] = typeExtended
	clear(ebr[mbrEntry+16+8 : mbrEntry+16+12])
	table = read(t, disk)
	require.Len(t, table.Partitions, 4)
	require.Contains(t, table.Notes[0], "does not end")
}

func TestNoTable(t *testing.T) {
	none := func(disk []byte) {
		t.Helper()
		_, err := Read(bytes.NewReader(disk), int64(len(disk)))
		require.ErrorIs(t, err, ErrNone)
	}
	none(nil)
	none(make([]byte, 100))
	none(make([]byte, 1<<20))
	fat := make([]byte, 1<<20)
	copy(fat[mbrEntry:], "NO NAME  is what the code says")
	fat[510], fat[511] = 0x55, 0xaa
	none(fat)
	empty := make([]byte, 1<<20)
	empty[510], empty[511] = 0x55, 0xaa
	none(empty)
	empty[mbrEntry+4], empty[mbrEntry+12] = typeProtective, 1
	_, err := Read(bytes.NewReader(empty), int64(len(empty)))
	require.ErrorIs(t, err, ErrDamaged)
}

func FuzzRead(f *testing.F) {
	gpt := func(sector int) []byte {
		d := make([]byte, 64<<10)
		d[510], d[511], d[mbrEntry+4], d[mbrEntry+12] = 0x55, 0xaa, typeProtective, 1
		le := binary.LittleEndian
		entries := d[2*sector:][:4*128]
		for i := range 2 {
			e := entries[128*i:]
			e[0], e[16] = 1, byte(i)
			le.PutUint64(e[32:], 4)
			le.PutUint64(e[40:], 7)
			copy(e[56:], "b\x00o\x00")
		}
		h := d[sector:]
		copy(h, gptMagic)
		le.PutUint32(h[12:], gptHeader)
		h[24], h[72], h[80], h[84] = 1, 2, 4, 128
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:gptHeader]))
		return d
	}
	for _, sector := range []int{512, 4096} {
		d := gpt(sector)
		table, err := Read(bytes.NewReader(d), int64(len(d)))
		require.NoError(f, err)
		require.Len(f, table.Partitions, 2)
		f.Add(d[:3*sector], uint32(len(d)), sector == 4096)
	}
	mbr := make([]byte, 8<<10)
	for _, at := range []int{0, 4 * 512, 8 * 512} {
		mbr[at+510], mbr[at+511] = 0x55, 0xaa
		mbr[at+mbrEntry+4], mbr[at+mbrEntry+8], mbr[at+mbrEntry+12] = 0x83, 1, 2
		mbr[at+mbrEntry+16+4], mbr[at+mbrEntry+16+8], mbr[at+mbrEntry+16+12] = typeExtended, 4, 2
	}
	f.Add(mbr, uint32(1<<20), false)
	f.Fuzz(func(t *testing.T, head []byte, size uint32, large bool) {
		disk := make([]byte, min(size, 1<<20))
		copy(disk, head)
		sector := 512
		if large {
			sector = 4096
		}
		fix(disk, sector)
		table, err := Read(bytes.NewReader(disk), int64(len(disk)))
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(table.Partitions), MaxPartitions+4)
		for _, p := range table.Partitions {
			require.True(t, p.Start >= 0 && p.Size > 0 && p.Start < int64(len(disk)) && p.Size <= int64(len(disk))-p.Start, "%+v", p)
		}
	})
}

// fix makes the sums of a GPT right, so that the fuzzer gets past them.
func fix(disk []byte, sector int) {
	if len(disk) < 2*sector || string(disk[sector:sector+8]) != gptMagic {
		return
	}
	le := binary.LittleEndian
	h := disk[sector : 2*sector]
	start, n := le.Uint64(h[72:])*uint64(sector), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
	if start < uint64(len(disk)) && n <= uint64(len(disk))-start {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[start:start+n]))
	}
	if length := le.Uint32(h[12:]); length <= uint32(sector) {
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:length]))
	}
}
