package rootfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/boot/diskboot/ext4"
)

func writeEmpty(t *testing.T, size int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	require.NoError(t, err)
	defer f.Close()
	if err := WriteEmpty(f, size); err != nil {
		require.ErrorIs(t, err, unix.EFBIG)
		t.Skip("this host's file system has no files of ", size, " bytes")
	}
	return f.Name()
}

var emptySizes = []int64{
	MinEmpty, 64 << 20, 127<<20 + 5, 128 << 20, 128<<20 + blockSize, 132 << 20, 133 << 20, 1<<30 + 12345,
	8 << 30, 100 << 30, 1<<40 + 77<<20, 16<<40 - 1<<30, MaxEmpty,
}

func TestWriteEmpty(t *testing.T) {
	for _, size := range emptySizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			disk := writeEmpty(t, size)
			var st unix.Stat_t
			require.NoError(t, unix.Stat(disk, &st))
			require.Equal(t, size&^(blockSize-1), st.Size)
			require.Less(t, st.Blocks*512, size>>20+128<<10)

			f, err := os.Open(disk)
			require.NoError(t, err)
			defer f.Close()
			fsys, err := ext4.Open(f)
			require.NoError(t, err)
			entries, err := fsys.ReadDir(".")
			require.NoError(t, err)
			require.Len(t, entries, 1)
			require.Equal(t, "lost+found", entries[0].Name())

			if _, err := exec.LookPath("e2fsck"); err != nil || size > 1<<38 {
				return // it needs minutes for the largest
			}
			out, err := exec.Command("e2fsck", "-f", "-n", disk).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

func TestWriteEmptyRefuses(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	require.NoError(t, err)
	defer f.Close()
	require.ErrorContains(t, WriteEmpty(f, MinEmpty-1), "a writable disk of 8388607 bytes: it can have 8388608 (8 MiB) to ")
	require.ErrorContains(t, WriteEmpty(f, MaxEmpty+1), "a writable disk of ")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	require.ErrorContains(t, WriteEmpty(w, MinEmpty), "empty the writable disk")
}

// The kernel fills disks, and e2fsck likes them afterwards.
func TestEmptyFilled(t *testing.T) {
	known, err := os.ReadFile("/proc/filesystems")
	if os.Getuid() != 0 || err != nil || !strings.Contains(string(known), "\text4\n") {
		t.Skip("only root mounts file systems, and only a kernel with ext4 this one")
	}
	runtime.LockOSThread() // and never unlocked: the thread is of no use to others
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skip("no mount namespace: ", err)
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for _, size := range []int64{MinEmpty, 128<<20 + blockSize, 133 << 20, 16 << 30} {
		disk := writeEmpty(t, size)
		point := t.TempDir()
		require.NoError(t, unix.Mount(loop(t, disk, 0), point, EmptyFileSystem, 0, ""))
		for i := range 300 {
			err := os.MkdirAll(filepath.Join(point, fmt.Sprint("d", i%7), fmt.Sprint("e", i)), 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(point, fmt.Sprint("d", i%7), fmt.Sprint("f", i)), make([]byte, i*4000), 0o600)
			}
			if size < 1<<30 && err != nil {
				require.ErrorIs(t, err, unix.ENOSPC)
			} else {
				require.NoError(t, err)
			}
		}
		require.NoError(t, unix.Setxattr(filepath.Join(point, "d0"), "trusted.overlay.opaque", []byte("y"), 0))
		require.NoError(t, unix.Unmount(point, 0))
		if _, err := exec.LookPath("e2fsck"); err == nil {
			out, err := exec.Command("e2fsck", "-f", "-n", disk).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
	}
}
