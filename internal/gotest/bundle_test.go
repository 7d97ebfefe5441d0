package gotest

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
	return name
}

// unpack is where a bundle's files are, when it has been unpacked, as the kernel would.
func unpack(t *testing.T, b *Bundle) string {
	t.Helper()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}
	var archive bytes.Buffer
	require.NoError(t, b.Write(&archive))
	root := t.TempDir()
	extract := exec.Command("cpio", "-id", "--quiet", "--no-preserve-owner")
	extract.Dir, extract.Stdin = root, &archive
	out, err := extract.CombinedOutput()
	require.NoError(t, err, string(out))
	return root
}

func TestBundle(t *testing.T) {
	home := t.TempDir()
	outside := write(t, filepath.Join(home, "outside.txt"), "outside")
	dir := filepath.Join(home, "pkg")
	write(t, dir+"/a_test.go", "package a")
	write(t, dir+"/testdata/in", "input")
	write(t, dir+"/.git/objects/pack", "history")
	write(t, dir+"/build/big", "big")
	write(t, dir+"/testdata/x.iso", "image")
	require.NoError(t, os.Symlink("in", dir+"/testdata/inside"))
	require.NoError(t, os.Symlink("../outside.txt", dir+"/borrowed"))
	require.NoError(t, os.Symlink("/nowhere", dir+"/broken"))
	require.NoError(t, unix.Mkfifo(dir+"/pipe", 0o644))
	program := write(t, filepath.Join(home, "work", "a.test"), "program")
	require.NoError(t, os.Chmod(program, 0o755))

	b, err := NewBundle(1<<20, []string{"build", "testdata/*.iso"})
	require.NoError(t, err)
	require.NoError(t, b.Add(program))
	require.NoError(t, b.Add(dir))
	require.NoError(t, b.Add(dir), "a second time changes nothing")
	b.MakeDir("/tmp", 0o777|fs.ModeSticky)
	b.AddText("/etc/hosts", "127.0.0.1 localhost\n")
	require.NoError(t, b.Check())
	require.EqualValues(t, len("package a")+len("input")+len("outside")+len("program"), b.Size())

	root := unpack(t, b)
	for file, want := range map[string]string{
		dir + "/a_test.go": "package a", dir + "/testdata/in": "input", dir + "/testdata/inside": "input",
		dir + "/borrowed": "outside", program: "program", "/etc/hosts": "127.0.0.1 localhost\n",
	} {
		got, err := os.ReadFile(root + file)
		require.NoError(t, err)
		require.Equal(t, want, string(got), file)
	}
	for _, file := range []string{dir + "/.git", dir + "/build", dir + "/testdata/x.iso", dir + "/pipe", outside} {
		require.NoFileExists(t, root+file)
		require.NoDirExists(t, root+file)
	}
	broken, err := os.Readlink(root + dir + "/broken")
	require.NoError(t, err)
	require.Equal(t, "/nowhere", broken)
	info, err := os.Stat(root + program)
	require.NoError(t, err)
	require.EqualValues(t, 0o755, info.Mode().Perm())
	info, err = os.Stat(root + "/tmp")
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&fs.ModeSticky)
}

func TestBundlesAreBounded(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/build/kernel/image", string(make([]byte, 3<<20)))
	write(t, dir+"/small", "x")
	b, err := NewBundle(2<<20, nil)
	require.NoError(t, err)
	require.NoError(t, b.Add(dir))
	require.ErrorIs(t, b.Check(), ErrTooLarge)
	require.ErrorContains(t, b.Check(), "3.0 MiB, at most 2.0 MiB are allowed: "+dir+"/build has 3.0 MiB, "+dir+"/small has")

	_, err = NewBundle(1, []string{"[a"})
	require.ErrorContains(t, err, `"[a"`)
	require.ErrorIs(t, b.Add(dir+"/none"), fs.ErrNotExist)
}

// TestAFolderThatIsALink, as a project's under $HOME may be, is taken along under that name.
func TestAFolderThatIsALink(t *testing.T) {
	home := t.TempDir()
	write(t, home+"/real/a_test.go", "package a")
	require.NoError(t, os.Symlink("real", home+"/link"))
	b, err := NewBundle(1<<20, nil)
	require.NoError(t, err)
	require.NoError(t, b.Add(home+"/link"))
	require.Contains(t, b.entries, home+"/link/a_test.go")
}
