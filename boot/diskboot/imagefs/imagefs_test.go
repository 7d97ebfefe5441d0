package imagefs

import (
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// A disk is Files in memory; a text that begins with "-> " is a link.
type disk map[string]string

func (d disk) at(name string) (string, string) {
	name = strings.TrimPrefix(name, "/")
	text := d[name]
	if target, ok := strings.CutPrefix(text, "-> "); ok {
		return target, d[target]
	}
	return name, text
}

func (d disk) Open(name string) (*io.SectionReader, error) {
	name, text := d.at(name)
	if _, ok := d[name]; !ok {
		return nil, fs.ErrNotExist
	}
	return io.NewSectionReader(strings.NewReader(text), 0, int64(len(text))), nil
}

func (d disk) Stat(name string) (fs.FileInfo, error) {
	full, text := d.at(name)
	if _, ok := d[full]; ok {
		return Info("what the link leads to", 0o644, int64(len(text))), nil
	}
	if infos, err := d.ReadDir(full); err != nil || len(infos) == 0 {
		return nil, fs.ErrNotExist
	}
	return Info("a folder", fs.ModeDir|0o755, 0), nil
}

func (d disk) Lstat(name string) (fs.FileInfo, error) {
	if strings.HasPrefix(d[strings.TrimPrefix(name, "/")], "-> ") {
		return Info("the link", fs.ModeSymlink|0o777, 9), nil
	}
	return d.Stat(name)
}

func (d disk) ReadLink(name string) (string, error) {
	target, ok := strings.CutPrefix(d[strings.TrimPrefix(name, "/")], "-> ")
	if !ok {
		return "", fs.ErrInvalid
	}
	return target, nil
}

func (d disk) ReadDir(folder string) (infos []fs.FileInfo, err error) {
	if strings.Contains(folder, "bad") {
		return nil, fs.ErrPermission
	}
	for name, text := range d {
		rest, ok := strings.CutPrefix(name, strings.TrimPrefix(folder, "/")+"/")
		if ok {
			first, _, isFolder := strings.Cut(rest, "/")
			switch {
			case isFolder:
				infos = append(infos, Info(first, fs.ModeDir|0o755, 0))
			case strings.HasPrefix(text, "-> "):
				infos = append(infos, Info(first, fs.ModeSymlink|0o777, 9))
			default:
				infos = append(infos, Info(first, 0o644, int64(len(text))))
			}
		}
	}
	return infos, nil
}

func TestFS(t *testing.T) {
	d := disk{
		"lib/modules/6.1/modules.dep": "text", "lib/modules/6.1/kernel/net/a.ko": "a", "lib/modules/6.1/kernel/net/b.ko": "-> elsewhere/b.ko",
		"lib/modules/6.1/kernel/c.ko": "", "elsewhere/b.ko": "the file that the link leads to",
	}
	f := New(d, "/lib/modules/6.1", "partition 1: /lib/modules/6.1")
	require.NoError(t, fstest.TestFS(f, "modules.dep", "kernel/net/a.ko", "kernel/net/b.ko", "kernel/c.ko"))
	require.Equal(t, "partition 1: /lib/modules/6.1", f.String())
	b, err := fs.ReadFile(f, "kernel/net/b.ko")
	require.NoError(t, err)
	require.Equal(t, "the file that the link leads to", string(b))
	i, err := fs.Stat(f, "kernel/net/b.ko")
	require.NoError(t, err)
	require.Equal(t, Info("b.ko", 0o644, int64(len(b))), i)
	for _, name := range []string{"../modules.dep", "/lib", "kernel/../modules.dep", ""} {
		_, err := f.Open(name)
		require.ErrorIs(t, err, fs.ErrInvalid, name)
		_, err = f.Stat(name)
		require.ErrorIs(t, err, fs.ErrInvalid, name)
		_, err = f.ReadDir(name)
		require.ErrorIs(t, err, fs.ErrInvalid, name)
		_, err = f.ReadFile(name)
		require.ErrorIs(t, err, fs.ErrInvalid, name)
		_, err = f.Lstat(name)
		require.ErrorIs(t, err, fs.ErrInvalid, name)
		_, err = f.ReadLink(name)
		require.ErrorIs(t, err, fs.ErrInvalid, name)
	}
	_, err = f.Open("kernel/d.ko")
	require.ErrorIs(t, err, fs.ErrNotExist)
	var named *fs.PathError
	require.ErrorAs(t, err, &named)
	require.Equal(t, "kernel/d.ko", named.Path)
}

func TestAFileOfAnySize(t *testing.T) {
	_, err := fs.ReadFile(New(listing{size: 1 << 62}, "x", ""), "hole")
	require.ErrorContains(t, err, "hole")
	require.ErrorContains(t, err, "4611686018427387904 bytes")
}

func TestNamesThatNoPathCanHave(t *testing.T) {
	a, b := Info("a", 0, 1), Info("b", 0, 2)
	infos := []fs.FileInfo{
		b, Info("", 0, 0), Info(".", fs.ModeDir, 0), Info("..", fs.ModeDir, 0), Info("a/b", 0, 0), Info("/", 0, 0),
		Info("\xff", 0, 0), a, Info("b", 0, 3),
	}
	list, err := New(listing{infos: infos}, "x", "").ReadDir(".")
	require.NoError(t, err)
	require.Equal(t, []fs.DirEntry{fs.FileInfoToDirEntry(a), fs.FileInfoToDirEntry(b)}, list)

	bad, err := New(disk{"bad/x": ""}, "/", "").Open("bad")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Nil(t, bad)
	dir, err := New(listing{err: fs.ErrPermission}, "x", "").Open(".")
	require.NoError(t, err)
	for range 2 {
		_, err = dir.(fs.ReadDirFile).ReadDir(-1)
		require.ErrorIs(t, err, fs.ErrPermission)
	}
}

// A listing is Files of one folder.
type listing struct {
	Files
	infos []fs.FileInfo
	err   error
	size  int64
}

func (l listing) Open(string) (*io.SectionReader, error) {
	return io.NewSectionReader(strings.NewReader(""), 0, l.size), nil
}

func (l listing) Stat(string) (fs.FileInfo, error)      { return Info("x", fs.ModeDir|0o755, 0), nil }
func (l listing) ReadDir(string) ([]fs.FileInfo, error) { return l.infos, l.err }
