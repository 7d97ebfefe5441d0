package initramfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The bytes of a small archive, field by field as the format has them.
func TestGolden(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	require.NoError(t, w.File("/bin/a", 0o755, 5, strings.NewReader("hello")))
	require.NoError(t, w.Device("console", 0o600|fs.ModeDevice|fs.ModeCharDevice, 5, 1))
	require.NoError(t, w.Device("disk", 0o660|fs.ModeDevice, 254, 3))
	require.NoError(t, w.Close())

	//       magic  inode   mode    uid     gid     links   mtime   size    device  0       rmajor  rminor  name+1  check
	want := "070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000002" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" + "bin\x00" + "\x00\x00" +
		"070701" + "00000002" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" + "00000000" + "00000000" + "00000000" + "00000000" + "00000006" + "00000000" + "bin/a\x00" + "hello\x00\x00\x00" +
		"070701" + "00000003" + "00002180" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000001" + "00000008" + "00000000" + "console\x00" + "\x00\x00" +
		"070701" + "00000004" + "000061B0" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" + "000000FE" + "00000003" + "00000005" + "00000000" + "disk\x00" + "\x00" +
		"070701" + "00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "0000000B" + "00000000" + "TRAILER!!!\x00" + "\x00\x00\x00"
	require.Equal(t, want, b.String())
	require.Zero(t, b.Len()%4)
}

func TestParentsAreMadeOnce(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	require.NoError(t, w.Dir("/a", 0o700))
	require.NoError(t, w.File("a/b/c", 0o644, 0, strings.NewReader("")))
	require.NoError(t, w.File("./a/b/../b/d", 0o644, 0, strings.NewReader("")))
	require.NoError(t, w.Dir("a/b", 0o755))
	require.NoError(t, w.Dir("/", 0o755))
	require.NoError(t, w.Close())
	require.Equal(t, 1, strings.Count(b.String(), "a/b\x00"))
	require.Equal(t, 1, strings.Count(b.String(), "000041C0"), "the mode given is kept")
	require.Contains(t, b.String(), "a/b/d\x00")
}

func TestRefusals(t *testing.T) {
	w := NewWriter(io.Discard)
	tests := []struct {
		name string
		err  error
		text string
	}{
		{"no name", w.File("/", 0, 0, nil), `"" is no file name`},
		{"a NUL", w.File("a\x00b", 0, 0, nil), "no file name"},
		{"a long name", w.File(strings.Repeat("x", 4096), 0, 0, nil), "4096 bytes"},
		{"a large file", w.File("f", 0, 1<<32, nil), "4 GiB"},
		{"a negative size", w.File("f", 0, -1, nil), "-1 bytes"},
		{"a link to nothing", w.Symlink("l", ""), "this one 0"},
		{"a short file", w.File("f", 0, 6, strings.NewReader("hello")), "5 of 6 bytes"},
		{"an unreadable file", w.File("f", 0, 6, failing{}), "worn out"},
		{"an unwritable archive", NewWriter(failing{}).Close(), "worn out"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.ErrorIs(t, tt.err, ErrArchive)
			require.ErrorContains(t, tt.err, tt.text)
		})
	}
}

var errWorn = errors.New("worn out")

type failing struct{}

func (failing) Read([]byte) (int, error)  { return 0, errWorn }
func (failing) Write([]byte) (int, error) { return 0, errWorn }

// The program reads it as we mean it.
func TestCPIO(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	require.NoError(t, w.File("etc/motd", 0o640, 3, strings.NewReader("hi\n")))
	require.NoError(t, w.Symlink("etc/issue", "motd"))
	require.NoError(t, w.Dir("tmp", 0o777|fs.ModeSticky))
	require.NoError(t, w.Close())

	list := exec.Command("cpio", "-t", "--quiet")
	list.Stdin = bytes.NewReader(b.Bytes())
	names, err := list.Output()
	require.NoError(t, err)
	require.Equal(t, "etc\netc/motd\netc/issue\ntmp\n", string(names))

	dir := t.TempDir()
	extract := exec.Command("cpio", "-i", "--quiet", "--no-preserve-owner")
	extract.Dir, extract.Stdin = dir, bytes.NewReader(b.Bytes())
	out, err := extract.CombinedOutput()
	require.NoError(t, err, string(out))
	text, err := os.ReadFile(dir + "/etc/motd")
	require.NoError(t, err)
	require.Equal(t, "hi\n", string(text))
	target, err := os.Readlink(dir + "/etc/issue")
	require.NoError(t, err)
	require.Equal(t, "motd", target)
	tmp, err := os.Stat(dir + "/tmp")
	require.NoError(t, err)
	require.Equal(t, fs.ModeDir|fs.ModeSticky|0o777, tmp.Mode())
}
