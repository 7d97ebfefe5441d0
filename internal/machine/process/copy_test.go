package process_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/machine"
)

// TestCopy goes by the table in docker cp's manual, both ways: the guest is this host.
func TestCopy(t *testing.T) {
	h := newHost(t)
	m := h.start("sleep 1000")
	tests := []struct {
		name, from, to string
		follow         bool
		made           string // the file that is there afterwards, with "text"; "" for an error
	}{
		{"a file becomes a file", "file", "new", false, "new"},
		{"a file in place of a file", "file", "old", false, "old"},
		{"a file into a folder", "file", "folder", false, "folder/file"},
		{"a file into a folder, said so", "file", "folder/", false, "folder/file"},
		{"a file into no folder", "file", "none/", false, ""},
		{"a file below no folder", "file", "none/x", false, ""},
		{"a folder becomes a folder", "dir", "new", false, "new/in/f"},
		{"a folder into a folder", "dir", "folder", false, "folder/dir/in/f"},
		{"a folder in place of a file", "dir", "old", false, ""},
		{"what is in a folder becomes a folder", "dir/.", "new", false, "new/in/f"},
		{"what is in a folder into a folder", "dir/.", "folder", false, "folder/in/f"},
		{"what is in a file", "file/.", "new", false, ""},
		{"a file that is no folder", "file/", "new", false, ""},
		{"nothing", "nothing", "new", false, ""},
		{"what a link leads to", "link", "new", true, "new"},
		{"what a link leads to, into a folder", "link", "folder", true, "folder/link"},
	}
	for _, way := range []string{"to", "from"} {
		for _, tt := range tests {
			t.Run(way+" "+tt.name, func(t *testing.T) {
				src, dst := t.TempDir(), t.TempDir()
				require.NoError(t, os.MkdirAll(src+"/dir/in", 0o755))
				require.NoError(t, os.WriteFile(src+"/dir/in/f", []byte("text"), 0o640))
				require.NoError(t, os.WriteFile(src+"/file", []byte("text"), 0o640))
				require.NoError(t, os.Symlink("dir/in/f", src+"/link"))
				require.NoError(t, os.Mkdir(dst+"/folder", 0o755))
				require.NoError(t, os.WriteFile(dst+"/old", []byte("old"), 0o600))
				do := m.CopyTo
				if way == "from" {
					do = m.CopyFrom
				}
				err := do(t.Context(), src+"/"+tt.from, dst+"/"+tt.to, machine.CopyOptions{Follow: tt.follow})
				if tt.made == "" {
					require.Error(t, err)
					return
				}
				require.NoError(t, err)
				b, err := os.ReadFile(filepath.Join(dst, tt.made))
				require.NoError(t, err)
				require.Equal(t, "text", string(b))
				info, err := os.Lstat(filepath.Join(dst, tt.made))
				require.NoError(t, err)
				require.EqualValues(t, 0o640, info.Mode().Perm())
			})
		}
		t.Run(way+" a link stays one", func(t *testing.T) {
			src, dst := t.TempDir(), t.TempDir()
			require.NoError(t, os.Symlink("x/y", src+"/link"))
			do := m.CopyTo
			if way == "from" {
				do = m.CopyFrom
			}
			require.NoError(t, do(t.Context(), src+"/link", dst, machine.CopyOptions{}))
			to, err := os.Readlink(dst + "/link")
			require.NoError(t, err)
			require.Equal(t, "x/y", to)
		})
	}
}

// TestCopyTars moves them as they are.
func TestCopyTars(t *testing.T) {
	h := newHost(t)
	m := h.start("sleep 1000")
	src, dst := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(src+"/f", bytes.Repeat([]byte("x"), 3<<20), 0o600))
	var b bytes.Buffer
	require.NoError(t, m.Download(t.Context(), src+"/.", &b))
	header, err := tar.NewReader(bytes.NewReader(b.Bytes())).Next()
	require.NoError(t, err)
	require.Equal(t, "f", header.Name)
	require.NoError(t, m.Upload(t.Context(), dst, &b))
	info, err := os.Stat(dst + "/f")
	require.NoError(t, err)
	require.EqualValues(t, 3<<20, info.Size())
	require.Error(t, m.Upload(t.Context(), dst+"/none", bytes.NewReader(nil)))

	require.NoError(t, m.Kill(t.Context()))
	require.ErrorContains(t, m.CopyTo(t.Context(), src, dst, machine.CopyOptions{}), "only there while it runs")
}
