package agent

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tarOf makes a tar of entries. Files are zeros.
func tarOf(t testing.TB, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		require.NoError(t, w.WriteHeader(&h))
		_, err := io.CopyN(w, endless{}, h.Size)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return &b
}

func file(name string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 5, Mode: 0o644}
}

func dirOf(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }

func sym(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
}

func hard(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink}
}

func TestUnpackStaysInside(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"dots":                     {file("../outside")},
		"dots below":               {file("a/../../outside")},
		"a folder":                 {dirOf("../new")},
		"through a link":           {sym("out", ".."), file("out/outside")},
		"through an absolute link": {sym("out", "/"), file("out/outside")},
		"through two links":        {sym("a", "b"), sym("b", "../"), file("a/outside")},
		"a folder through a link":  {sym("out", ".."), dirOf("out/new")},
		"a hard link out":          {hard("x", "../outside"), file("x")},
		"a hard link by a link":    {sym("out", ".."), hard("x", "out/outside")},
		"a device":                 {{Name: "x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"a pipe":                   {{Name: "x", Typeflag: tar.TypeFifo}},
		"no name":                  {sym("/", "a")},
		"a long name":              {file(strings.Repeat("a/", 3000) + "b")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			inside := filepath.Join(dir, "inside")
			require.NoError(t, os.Mkdir(inside, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "outside"), []byte("kept"), 0o600))
			require.Error(t, Unpack(openRoot(t, inside), tarOf(t, entries...)))
			requireUntouched(t, dir)
		})
	}
	t.Run("what only looks like it", func(t *testing.T) {
		dir := t.TempDir()
		entries := []tar.Header{
			dirOf("./"), file("/absolute"), file("..a/b.."), sym("link", "../outside"), file("link"), // the link is replaced
			file("x"), hard("y", "x"), file("y"), dirOf("real"), sym("alias", "real"), dirOf("alias"), file("alias/in"),
			{Name: "su", Typeflag: tar.TypeReg, Mode: 0o4755},
			{Name: "shut", Typeflag: tar.TypeDir, Mode: 0},
		}
		require.NoError(t, Unpack(openRoot(t, dir), tarOf(t, entries...)))
		for name, mode := range map[string]fs.FileMode{
			"absolute": 0o644, "..a/b..": 0o644, "link": 0o644, "y": 0o644, "real/in": 0o644, "su": 0o755, "shut": 0o700 | fs.ModeDir,
		} {
			info, err := os.Lstat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, mode, info.Mode(), name)
		}
	})
}

// requireUntouched checks that a folder has in it but inside what it had.
func requireUntouched(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	b, err := os.ReadFile(filepath.Join(dir, "outside"))
	require.NoError(t, err)
	require.Equal(t, "kept", string(b))
}

func TestUnpackRefusesHoles(t *testing.T) {
	// GNU's format 1.0: 8 EiB of zeros in a kilobyte.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{"HUSK.sparse.major": "1"}}))
	require.NoError(t, w.Close())
	raw := b.Bytes()
	require.NoError(t, Unpack(openRoot(t, t.TempDir()), bytes.NewReader(raw)))
	require.True(t, Sparse(&tar.Header{PAXRecords: map[string]string{"GNU.sparse.major": "1"}}))
	require.True(t, Sparse(&tar.Header{Typeflag: tar.TypeGNUSparse}))
}

// FuzzUnpack: whatever a guest sends, nothing is written outside of the folder.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, dirOf("a"), file("a/b"), sym("a/c", "b"), hard("d", "a/b")).Bytes())
	f.Add(tarOf(f, sym("out", ".."), file("out/outside"), file("../outside")).Bytes())
	f.Add(tarOf(f, sym("a", "b"), sym("b", "../"), dirOf("a"), file("a/outside")).Bytes())
	f.Add(tarOf(f, hard("x", "../outside"), file("x")).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		inside := filepath.Join(dir, "inside")
		require.NoError(t, os.Mkdir(inside, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "outside"), []byte("kept"), 0o600))
		_ = Unpack(openRoot(t, inside), bytes.NewReader(b))
		requireUntouched(t, dir)
	})
}

// TestUnpackReplacesWhole: what a file replaces is there until all of it has come.
func TestUnpackReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(old, []byte("old"), 0o600))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o640, Size: 3000}))
	_, err = w.Write(bytes.Repeat([]byte("n"), 3000))
	require.NoError(t, err)
	require.NoError(t, w.Close())

	require.ErrorContains(t, Unpack(root, bytes.NewReader(b.Bytes()[:2000])), "f: ")
	got, err := os.ReadFile(old)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "the half of the new one is gone")

	require.NoError(t, Unpack(root, &b))
	got, err = os.ReadFile(old)
	require.NoError(t, err)
	require.Len(t, got, 3000)
}
