package rootfs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// header writes a header by hand, for what archive/tar does not write.
func header(name string, kind byte, size int64, gnu bool) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], octal(size))
	copy(h[136:], octal(0))
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	if gnu {
		copy(h[257:], "ustar  \x00")
	}
	return h
}

// octal is a field of 12 bytes, binary where the digits do not suffice.
func octal(n int64) string {
	if n < 1<<33 {
		return fmt.Sprintf("%011o\x00", n)
	}
	return "\x80\x00\x00\x00" + string([]byte{byte(n >> 56), byte(n >> 48), byte(n >> 40), byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// sum puts the checksum into a header.
func sum(h []byte) []byte {
	copy(h[148:], "        ")
	n := 0
	for _, b := range h {
		n += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", n))
	return h
}

func block(s string) []byte { return append([]byte(s), make([]byte, -len(s)&511)...) }

// records writes PAX records, in the order given, which archive/tar would not for 0.0.
func records(pairs ...string) []byte {
	var s strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		line := " " + pairs[i] + "=" + pairs[i+1] + "\n"
		n := len(line)
		for n != len(line)+len(strconv.Itoa(n)) {
			n = len(line) + len(strconv.Itoa(n))
		}
		s.WriteString(strconv.Itoa(n) + line)
	}
	return append(sum(header("pax", 'x', int64(s.Len()), false)), block(s.String())...)
}

// sparseArchive makes the archive of a sparse file "s" in one of the forms, and of a file
// "after" behind it.
func sparseArchive(t testing.TB, form string, size int64, fragments []fragment, content string) []byte {
	t.Helper()
	var text []string
	for _, f := range fragments {
		text = append(text, strconv.FormatInt(f.offset, 10), strconv.FormatInt(f.length, 10))
	}
	var b bytes.Buffer
	count, whole := strconv.Itoa(len(fragments)), strconv.FormatInt(size, 10)
	plain := sum(header("s", '0', int64(len(content)), false))
	switch form {
	case "old":
		h := header("s", 'S', int64(len(content)), true)
		copy(h[483:], octal(size))
		var all []byte
		for _, f := range fragments {
			all = append(all, octal(f.offset)+octal(f.length)...)
		}
		n := copy(h[386:482], all)
		all = all[n:]
		if len(all) > 0 {
			h[482] = 1
		}
		b.Write(sum(h))
		for len(all) > 0 {
			e := make([]byte, 512)
			n := copy(e[:504], all)
			if all = all[n:]; len(all) > 0 {
				e[504] = 1
			}
			b.Write(e)
		}
	case "0.0":
		pairs := []string{"GNU.sparse.size", whole, "GNU.sparse.numblocks", count}
		for i := 0; i < len(text); i += 2 {
			pairs = append(pairs, "GNU.sparse.offset", text[i], "GNU.sparse.numbytes", text[i+1])
		}
		b.Write(records(pairs...))
		b.Write(plain)
	case "0.1":
		b.Write(records("GNU.sparse.size", whole, "GNU.sparse.numblocks", count, "GNU.sparse.map", strings.Join(text, ","), "GNU.sparse.name", "s"))
		b.Write(plain)
	case "1.0":
		m := block(count + "\n" + strings.Join(text, "\n") + "\n")
		b.Write(records("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", whole, "GNU.sparse.name", "s"))
		b.Write(sum(header("GNUSparseFile.0/s", '0', int64(len(m)+len(content)), false)))
		b.Write(m)
	}
	b.Write(block(content))
	b.Write(pack(t, file("after", "behind")))
	return b.Bytes()
}

func TestSparse(t *testing.T) {
	var many []fragment
	for i := range int64(100) {
		many = append(many, fragment{i * 5000, i})
	}
	for name, c := range map[string]struct {
		size      int64
		fragments []fragment
	}{
		"holes between":       {20000, []fragment{{0, 10}, {5000, 5000}, {12288, 1}}},
		"a hole at the start": {9000, []fragment{{8000, 1000}}},
		"all hole":            {1 << 20, []fragment{{1 << 20, 0}}},
		"no fragment":         {4097, nil},
		"many fragments":      {600000, many},
		"no hole":             {5000, []fragment{{0, 5000}}},
		"empty":               {0, []fragment{{0, 0}}},
		"beyond 8 GiB":        {1 << 40, []fragment{{0, 100}, {1<<40 - 100, 100}}},
	} {
		content := ""
		for i, f := range c.fragments {
			content += strings.Repeat(string(rune('a'+i%26)), int(f.length))
		}
		for _, form := range []string{"old", "0.0", "0.1", "1.0"} {
			if strings.HasPrefix(form, "0") && c.fragments == nil {
				continue // what tells it from any other file are its fragments
			}
			t.Run(name+", "+form, func(t *testing.T) {
				image, _, err := build(t, layerOf(sparseArchive(t, form, c.size, c.fragments, content)))
				require.NoError(t, err)
				all := read(t, image)
				require.Equal(t, "behind", string(all["after"].content))
				require.Equal(t, c.size, all["s"].Size)
				if c.size < 1<<24 {
					want := make([]byte, c.size)
					rest := content
					for _, f := range c.fragments {
						rest = rest[copy(want[f.offset:f.offset+f.length], rest):]
					}
					require.True(t, bytes.Equal(want, all["s"].content))
				}
				var st unix.Stat_t
				require.NoError(t, unix.Stat(image, &st))
				require.Less(t, st.Blocks*512, int64(len(content)+len(c.fragments)*8192+1<<16))
			})
		}
	}
}

// What GNU tar itself writes.
func TestSparseByTar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("no tar")
	}
	for _, form := range []string{"--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0"} {
		t.Run(form, func(t *testing.T) {
			folder := t.TempDir()
			f, err := os.Create(filepath.Join(folder, "s"))
			require.NoError(t, err)
			for i := range int64(40) {
				_, err = f.WriteAt([]byte(strings.Repeat("x", 100)), i<<20+i)
				require.NoError(t, err)
			}
			require.NoError(t, f.Truncate(50<<20))
			require.NoError(t, f.Close())
			args := append(strings.Fields(form), "--sparse", "-C", folder, "-cf", "-", "s")
			archive, err := exec.Command("tar", args...).Output()
			require.NoError(t, err)
			require.Less(t, len(archive), 1<<20)
			image, stats, err := build(t, layerOf(archive))
			require.NoError(t, err)
			require.Equal(t, int64(50<<20), stats.Content)
			content := readFile(t, image, "s")
			want, err := os.ReadFile(f.Name())
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, content))
		})
	}
}

func TestSparseRefused(t *testing.T) {
	const tib = 1 << 40
	for _, form := range []string{"old", "0.0", "0.1", "1.0"} {
		t.Run("exabytes, "+form, func(t *testing.T) {
			_, _, err := build(t, layerOf(sparseArchive(t, form, 1<<60, []fragment{{0, 1}}, "x")))
			require.ErrorIs(t, err, ErrLayer)
			require.ErrorContains(t, err, "s: not a usable image layer: with its 1152921504606846976 bytes the image would be larger than the 16 TiB")
		})
		t.Run("a whiteout of exabytes, "+form, func(t *testing.T) {
			archive := sparseArchive(t, form, 1<<60, []fragment{{0, 1}, {1 << 50, 2000}}, strings.Repeat("x", 2001))
			image, _, err := build(t, whiteoutOf(t, archive))
			require.NoError(t, err)
			require.Equal(t, tree{"after": `file "behind"`}, list(t, image))
		})
		t.Run("a map for more than there is, "+form, func(t *testing.T) {
			_, _, err := build(t, layerOf(sparseArchive(t, form, 1<<20, []fragment{{0, 2000}}, "x")))
			require.ErrorIs(t, err, ErrLayer)
		})
	}
	t.Run("many", func(t *testing.T) {
		var layers []Layer
		for range 5 {
			layers = append(layers, layerOf(sparseArchive(t, "1.0", 4*tib, []fragment{{0, 1}}, "x")))
		}
		_, _, err := build(t, layers...)
		require.ErrorContains(t, err, "larger than the 16 TiB")
	})
}

// whiteoutOf makes the sparse file of an archive a whiteout.
func whiteoutOf(t testing.TB, archive []byte) Layer {
	t.Helper()
	r := bytes.Clone(archive)
	for i := 0; i+512 <= len(r); i += 512 {
		if k := r[i+156]; (k == '0' || k == 'S') && bytes.HasPrefix(r[i+257:], []byte("ustar")) && !bytes.HasPrefix(r[i:], []byte("after")) {
			copy(r[i:], "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
			copy(r[i:], ".wh.s")
			sum(r[i : i+512])
		}
	}
	return layerOf(bytes.ReplaceAll(r, []byte("21 GNU.sparse.name=s\n"), []byte("21 GNU.sparse.nope=s\n")))
}

func TestSparseStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	require.NoError(t, err)
	defer f.Close()
	_, err = Build(ctx, f, []Layer{layerOf(sparseArchive(t, "1.0", 1<<40, []fragment{{0, 1}}, "x"))})
	require.ErrorIs(t, err, context.Canceled)
}
