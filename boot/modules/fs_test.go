package modules

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTreesThatNoHostHas(t *testing.T) {
	files := fstest.MapFS{
		"modules.builtin":    {Data: []byte("kernel/lib/crc32.ko\n")},
		"kernel/a.ko.gz":     {Data: packGzip(t, ko("depends=b,crc32\x00"))},
		"kernel/sub/b.ko":    {Data: ko("depends=\x00")},
		"kernel/a\nb.ko":     {Data: ko("depends=\x00")},
		"extra/links.ko.zst": {Data: packZstd(t, ko("depends=a\x00"))},
	}
	tr, err := OpenFS(files, "partition 1: /lib/modules/6.1")
	require.NoError(t, err)
	list, err := tr.Resolve("links")
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a", "links"}, names(list))
	require.Equal(t, "kernel/a.ko.gz", list[1].Path)
	require.Equal(t, "partition 1: /lib/modules/6.1/kernel/a.ko.gz", list[1].File)
	for _, m := range list {
		b, err := m.Read()
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(b, []byte("\x7fELF")), m.Name)
	}
	require.False(t, tr.Has("a\nb"), "a name that would break a list of lines")

	_, err = tr.Resolve("absent")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "(looked in partition 1: /lib/modules/6.1)")
	delete(files, "kernel/sub/b.ko")
	_, err = list[0].Read()
	require.ErrorIs(t, err, ErrModule)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "partition 1: /lib/modules/6.1/kernel/sub/b.ko")
	_, err = OpenFS(fstest.MapFS{}, "nothing")
	require.ErrorIs(t, err, ErrTree)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "nothing")
}

// A modules.dep is not a way out of its tree.
func TestPathsOutOfTheTree(t *testing.T) {
	root := filepath.Join(tree(t, nil), "inner")
	require.NoError(t, os.Mkdir(root, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "../out.ko"), ko("depends=\x00"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(root, "modules.builtin"), nil, 0o644))
	for _, way := range []string{"../out.ko", "kernel/../../out.ko", filepath.Join(filepath.Dir(root), "out.ko")} {
		require.NoError(t, os.WriteFile(filepath.Join(root, "modules.dep"), []byte(way+":\n"), 0o644))
		tr, err := Open(root)
		require.NoError(t, err)
		list, err := tr.Resolve("out")
		require.NoError(t, err)
		_, err = list[0].Read()
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
}

// A maze is a tree whose folders have two folders each, for ever.
type maze struct{ fs.FS }

func (m maze) ReadDir(name string) ([]fs.DirEntry, error) {
	if len(name) > 40 {
		return nil, nil
	}
	var list []fs.DirEntry
	for _, name := range []string{"a", "b"} {
		list = append(list, fs.FileInfoToDirEntry(folder(name)))
	}
	return list, nil
}

func (m maze) Stat(name string) (fs.FileInfo, error) { return folder(name), nil }

// A folder is called so, and there is no more to it.
type folder string

func (f folder) Name() string       { return string(f) }
func (f folder) Size() int64        { return 0 }
func (f folder) Mode() fs.FileMode  { return fs.ModeDir }
func (f folder) ModTime() time.Time { return time.Time{} }
func (f folder) IsDir() bool        { return true }
func (f folder) Sys() any           { return nil }

func TestTreesWithoutAnEnd(t *testing.T) {
	with := func(name, text string) fstest.MapFS {
		return fstest.MapFS{"modules.builtin": {}, name: {Data: []byte(text)}}
	}
	chain := ""
	for i := range maxNeeds + 1 {
		chain += fmt.Sprintf("m%d.ko: m%d.ko\n", i, i+1)
	}
	for name, fsys := range map[string]fs.FS{
		"builtin":  with("modules.builtin", strings.Repeat("kernel/a.ko\n", maxIndex/12+1)),
		"dep":      with("modules.dep", strings.Repeat("a.ko:\n", maxIndex/6+1)),
		"line":     with("modules.dep", strings.Repeat("a.ko:", 1<<17)),
		"binary":   with("modules.dep", "a\x1b[2J.ko:\n"),
		"too many": maze{with("modules.dep", "")},
	} {
		_, err := OpenFS(fsys, "this")
		require.ErrorIs(t, err, ErrTree, name)
		require.True(t, plain(err.Error()), name)
		require.Less(t, len(err.Error()), 200, name)
	}
	tr, err := OpenFS(with("modules.dep", chain+strings.Repeat("m", maxName+1)+".ko:\n"), "this")
	require.NoError(t, err)
	_, err = tr.Resolve("m1")
	require.ErrorIs(t, err, ErrNotFound, "the last is not there")
	_, err = tr.Resolve("m0")
	require.ErrorIs(t, err, ErrModule)
	require.ErrorContains(t, err, "needed at once")
	require.False(t, tr.Has(strings.Repeat("m", maxName+1)), "the kernel has no room for such a name")
}

func TestNamesOfDependencies(t *testing.T) {
	for _, bad := range []string{"a\x1b[2J", "a\nb", strings.Repeat("x", maxName+1)} {
		tr, err := OpenFS(fstest.MapFS{"modules.builtin": {}, "m.ko": {Data: ko("depends=" + bad + "\x00")}}, "this")
		require.NoError(t, err)
		_, err = tr.Resolve("m")
		require.ErrorIs(t, err, ErrModule)
		require.True(t, plain(err.Error()))
	}
}

func FuzzTree(f *testing.F) {
	f.Add([]byte("kernel/lib/crc32.ko\n"), []byte("kernel/a.ko: kernel/b.ko.gz\nkernel/b.ko.gz:\n"), ko("depends=b\x00"))
	f.Add([]byte("kernel/b.ko\n"), []byte(""), ko("depends=b,a\x00"))
	f.Add([]byte(""), []byte("kernel/a.ko: kernel/a.ko /kernel/b.ko.gz ../c.ko\n"), []byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, builtin, dep, module []byte) {
		tr, err := OpenFS(fstest.MapFS{
			"modules.builtin": {Data: builtin}, "modules.dep": {Data: dep},
			"kernel/a.ko": {Data: module}, "kernel/b.ko.gz": {Data: module}, "extra/c.ko.zst": {Data: module}, "extra/d.ko.xz": {Data: module},
		}, "this")
		if err != nil {
			require.ErrorIs(t, err, ErrTree)
			require.True(t, plain(err.Error()), err)
			return
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			list, err := tr.Resolve(name)
			require.True(t, err == nil || errors.Is(err, ErrModule) || errors.Is(err, ErrNotFound), err)
			require.True(t, err == nil || plain(err.Error()), err)
			for i, m := range list {
				require.True(t, plain(m.File) && len(m.Name) <= maxName)
				_, _ = m.Read()
				for _, other := range list[:i] {
					require.NotEqual(t, m.Name, other.Name)
				}
			}
		}
	})
}
