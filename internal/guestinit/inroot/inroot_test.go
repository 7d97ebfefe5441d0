package inroot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// make a root with links, and a folder beside it that nothing may reach.
func newRoot(t *testing.T, links map[string]string) (*Root, string, string) {
	t.Helper()
	base := t.TempDir()
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	for name, target := range links {
		name = filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.Symlink(strings.ReplaceAll(target, "OUTSIDE", outside), name))
	}
	r, err := Open(root)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r, root, outside
}

// where is the path below root that a file has.
func where(t *testing.T, root string, f *os.File, err error) string {
	t.Helper()
	require.NoError(t, err)
	defer f.Close()
	name, err := os.Readlink(Path(f))
	require.NoError(t, err)
	rel, err := filepath.Rel(root, name)
	require.NoError(t, err)
	return rel
}

func TestPathsStayInside(t *testing.T) {
	for _, tt := range []struct{ link, target, name, want string }{
		{"x", "y", "/a/b/c", "a/b/c"},
		{"x", "y", "../../a", "a"},
		{"x", "y", "/../../a/../b", "b"},
		{"x", "y", "/a/b/../c", "a/c"},
		{"x", "y", "/x", "y"},
		{"etc/resolv.conf", "../run/systemd/stub", "/etc/resolv.conf", "run/systemd/stub"},
		{"etc/resolv.conf", "../../../../run/stub", "/etc/resolv.conf", "run/stub"},
		{"etc/resolv.conf", "/run/stub", "/etc/resolv.conf", "run/stub"},
		{"var/run", "/run", "/var/run/a", "run/a"},
		{"out", "OUTSIDE", "/out/a", ""},
		{"out", "../outside", "/out/a", "outside/a"},
		{"deep/link", "nowhere/../other", "/deep/link", "deep/other"},
	} {
		for _, file := range []bool{false, true} {
			r, root, outside := newRoot(t, map[string]string{tt.link: tt.target})
			open := r.Folder
			if file {
				open = r.File
			}
			want := tt.want
			if want == "" {
				want = strings.TrimPrefix(outside, "/") + "/a"
			}
			for range 2 { // also once it is there
				f, err := open(tt.name)
				require.Equal(t, want, where(t, root, f, err), "%+v", tt)
			}
			st, err := os.Lstat(filepath.Join(root, want))
			require.NoError(t, err)
			require.Equal(t, !file, st.IsDir(), "%+v", tt)
			left, err := os.ReadDir(outside)
			require.NoError(t, err)
			require.Empty(t, left)
		}
	}
}

func TestPathsThatCannotBe(t *testing.T) {
	r, root, _ := newRoot(t, map[string]string{"loop": "loop", "long": "long/a", "self": "b/../self/c"})
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	for name, want := range map[string]error{
		"/loop": unix.ELOOP, "/long": unix.ELOOP, "/self": unix.ELOOP, "/file/a": unix.ENOTDIR,
		"/" + strings.Repeat("n", 300): unix.ENAMETOOLONG,
	} {
		_, err := r.Folder(name)
		require.ErrorIs(t, err, want, name)
		_, err = r.File(name)
		require.ErrorIs(t, err, want, name)
	}
	_, err := Open(root + "/none")
	require.ErrorIs(t, err, unix.ENOENT)
	f, err := r.Folder("/")
	require.Equal(t, ".", where(t, root, f, err))
}

func FuzzFolder(f *testing.F) {
	f.Add("/a/b", "a", "/run")
	f.Add("/etc/resolv.conf", "etc/resolv.conf", "../../run/x")
	f.Fuzz(func(t *testing.T, name, link, target string) {
		base := t.TempDir()
		root := filepath.Join(base, "root")
		require.NoError(t, os.Mkdir(root, 0o755))
		if at := filepath.Join(root, link); strings.HasPrefix(at, root+"/") && !strings.Contains(link+target, "\x00") {
			_ = os.MkdirAll(filepath.Dir(at), 0o755)
			_ = os.Symlink(target, at)
		}
		r, err := Open(root)
		require.NoError(t, err)
		defer r.Close()
		got, err := r.Folder(name)
		if err == nil {
			at, err := os.Readlink(Path(got))
			require.NoError(t, err)
			require.True(t, at == root || strings.HasPrefix(at, root+"/"), at)
			_ = got.Close()
		}
		list, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, list, 1, "something was made outside")
	})
}
