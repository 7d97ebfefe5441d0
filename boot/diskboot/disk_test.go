package diskboot

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot"
)

const mib = 1 << 20

// need skips a test where a tool is missing.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here (Debian: e2fsprogs, fdisk, dosfstools, mtools): %v", tool, err)
		}
	}
}

func command(t testing.TB, stdin, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Env = strings.NewReader(stdin), append(os.Environ(), "MTOOLS_SKIP_CHECK=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", name, out)
}

// A tree is files by their paths; a text that begins with "-> " is a link.
type tree map[string]string

func (files tree) write(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			require.NoError(t, os.Symlink(target, path))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return root
}

func blank(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, size))
	return path
}

const (
	rootUUID = "11111111-aaaa-4bbb-8ccc-222222222222"
	bootUUID = "55555555-aaaa-4bbb-8ccc-666666666666"
	partUUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
)

// ext4 and vfat make the content of a partition.
func (files tree) ext4(t testing.TB, uuid string, args ...string) []byte {
	t.Helper()
	need(t, "mke2fs")
	path := blank(t, 4*mib)
	command(t, "", "mke2fs", append(append([]string{"-q", "-F", "-t", "ext4", "-U", uuid}, args...), "-d", files.write(t), path)...)
	return content(t, path)
}

func (files tree) vfat(t testing.TB) []byte {
	t.Helper()
	need(t, "mkfs.vfat", "mcopy")
	path := blank(t, 4*mib)
	command(t, "", "mkfs.vfat", "-i", "cafe1234", path)
	root := files.write(t)
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	for _, e := range entries {
		command(t, "", "mcopy", "-s", "-i", path, filepath.Join(root, e.Name()), "::/")
	}
	return content(t, path)
}

func content(t testing.TB, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	return p
}

// A part is a partition of 4 MiB.
type part struct {
	options string // of sfdisk
	content []byte
}

// disk puts partitions behind a table.
func disk(t testing.TB, label string, parts ...part) []byte {
	t.Helper()
	need(t, "sfdisk")
	script := "label: " + label + "\n"
	for i, p := range parts {
		script += fmt.Sprintf("start=%dMiB, size=4MiB, %s\n", 1+4*i, p.options)
	}
	path := blank(t, int64(2+4*len(parts))*mib)
	command(t, script, "sfdisk", "-q", path)
	image := content(t, path)
	for i, p := range parts {
		copy(image[(1+4*i)*mib:], p.content)
	}
	return image
}

func source(image []byte) boot.Source {
	return boot.Source{Name: "disk.img", Size: int64(len(image)), ReaderAt: bytes.NewReader(image)}
}

// found is what Find finds, with the texts of the files.
type found struct {
	kernel, initrds, cmdline, origin string
}

func find1(t *testing.T, image []byte) (found, *Found) {
	t.Helper()
	f, err := Find(source(image))
	require.NoError(t, err)
	got := found{kernel: text(t, f.Kernel), cmdline: f.CommandLine, origin: f.Origin}
	for _, i := range f.Initrds {
		got.initrds += text(t, i)
	}
	return got, f
}

func text(t *testing.T, s boot.Source) string {
	t.Helper()
	p, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size))
	require.NoError(t, err)
	return string(p)
}

// grubTexts are the samples of package grub, with the versions that system has.
func grubText(t testing.TB, name string) string {
	t.Helper()
	return string(content(t, filepath.Join("grub", "testdata", name)))
}
