package disk_test

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/disk/qcow2"
)

func openError(t *testing.T, spec string) error {
	t.Helper()
	s, err := disk.ParseSpec(spec)
	require.NoError(t, err)
	_, err = disk.Open(s, slog.New(slog.DiscardHandler))
	require.Error(t, err)
	return err
}

func TestRawImages(t *testing.T) {
	for _, options := range []string{"", ",discard=on", ",cache=unsafe", ",cache=direct,discard=on"} {
		for _, size := range []int{1 << 20, 1<<20 + 512*7, 512} {
			path := write(t, filepath.Join(t.TempDir(), "disk"), pattern(size, 1))
			if s, err := disk.ParseSpec(path + options); err == nil && s.Cache == disk.Direct && size%4096 != 0 {
				continue // may be refused, by the file system's alignment
			}
			d := open(t, path+options)
			require.EqualValues(t, size, d.Size())
			require.Equal(t, disk.Raw, d.Spec().Format)
			want := pattern(size, 1)
			scribble(t, d, want, 9, 100)
			require.True(t, bytes.Equal(want, readAll(t, d)))
			require.NoError(t, d.Close())
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "%s %d", options, size)
		}
	}
}

// TestUnalignedMemoryWithoutPageCache: guest memory lies as it likes.
func TestUnalignedMemoryWithoutPageCache(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		path := filepath.Join(t.TempDir(), "disk")
		if format == "raw" {
			write(t, path, make([]byte, 4<<20))
		} else {
			require.NoError(t, disk.Create(path, 4<<20, qcow2.CreateOptions{ClusterBits: 12}))
		}
		d := open(t, path+",cache=direct,format="+format)
		want := make([]byte, 4<<20)
		memory := make([]byte, 3<<20)
		for i, off := range []int64{0, 512, 4096, 1<<20 - 512, 100 * 512} {
			n := 512*(1+i*37) + i*(1<<19)
			v := [][]byte{memory[i+1 : i+1+100], memory[1000+i : 1000+i+n-100]}
			for j := range v {
				copy(v[j], pattern(len(v[j]), uint64(i*2+j)))
			}
			copy(want[off:], bytes.Join(v, nil))
			require.NoError(t, d.WriteAt(v, off))
		}
		got := memory[1 : 1+1<<20]
		for off := int64(0); off < 4<<20; off += 1 << 20 {
			require.NoError(t, d.ReadAt([][]byte{got[:700], got[700:]}, off))
			require.True(t, bytes.Equal(want[off:off+1<<20], got), "%s at %#x", format, off)
		}
		require.NoError(t, d.Flush())
		require.NoError(t, d.Close())
	}
}

func TestNoDirectAccess(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "husk")
	if err != nil {
		t.Skip("no tmpfs")
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := write(t, filepath.Join(dir, "disk"), make([]byte, 4096))
	s := disk.Spec{File: path, Cache: disk.Direct}
	d, err := disk.Open(s, slog.New(slog.DiscardHandler))
	if err == nil { // tmpfs can, since Linux 6.6
		require.NoError(t, d.Close())
		return
	}
	require.ErrorIs(t, err, disk.ErrNoDirect)
	require.ErrorContains(t, err, path)
}

// TestARawImageOfOddLength is filled up to a sector.
func TestARawImageOfOddLength(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "disk"), bytes.Repeat([]byte{1}, 700))
	d := open(t, path)
	require.EqualValues(t, 1024, d.Size())
	want := append(bytes.Repeat([]byte{1}, 700), make([]byte, 324)...)
	require.Equal(t, want, readAll(t, d))
	require.NoError(t, d.WriteAt([][]byte{bytes.Repeat([]byte{2}, 512)}, 512))
	require.NoError(t, d.Close())
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 1024, st.Size())
}

// TestAGuestCannotMakeAQcow2OfARawImage, unless somebody has said that it is raw.
func TestAGuestCannotMakeAQcow2OfARawImage(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "disk"), make([]byte, 1<<16))
	evil := append([]byte(qcow2.Magic), make([]byte, 8188)...)
	d := open(t, path)
	require.ErrorIs(t, d.WriteAt([][]byte{evil[:512], evil[512:]}, 0), disk.ErrMagic)
	require.ErrorIs(t, d.WriteAt([][]byte{evil[:2], evil[2:512]}, 0), disk.ErrMagic)
	require.NoError(t, d.WriteAt([][]byte{evil[:2]}, 0))
	require.ErrorIs(t, d.WriteAt([][]byte{evil[2:512]}, 2), disk.ErrMagic)
	require.NoError(t, d.WriteAt([][]byte{evil}, 512))
	ok := bytes.Repeat([]byte{5}, 2048)
	require.NoError(t, d.WriteAt([][]byte{ok[:100], ok[100:]}, 0))
	require.Equal(t, ok, readAll(t, d)[:2048])
	require.NoError(t, d.Close())

	d = open(t, path+",format=raw")
	require.NoError(t, d.WriteAt([][]byte{evil}, 0))
	require.NoError(t, d.Close())
	require.ErrorIs(t, openError(t, path), qcow2.ErrUnsupported) // version 0
	require.NoError(t, open(t, path+",format=raw").Close())
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	require.ErrorIs(t, openError(t, filepath.Join(dir, "none")), os.ErrNotExist)
	require.ErrorContains(t, openError(t, dir), "neither a regular file")
	require.ErrorContains(t, openError(t, "/dev/null"), "neither a regular file")
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	require.ErrorContains(t, openError(t, fifo+",ro"), "neither a regular file")
	require.ErrorIs(t, openError(t, write(t, filepath.Join(dir, "vmdk"), append([]byte("KDMV"), make([]byte, 508)...))), disk.ErrFormat)
	require.ErrorIs(t, openError(t, write(t, filepath.Join(dir, "empty"), nil)+",format=qcow2"), qcow2.ErrFormat)

	path := write(t, filepath.Join(dir, "disk"), make([]byte, 4096))
	d := open(t, path+",ro")
	require.True(t, d.ReadOnly())
	require.ErrorIs(t, d.WriteAt([][]byte{{1}}, 0), disk.ErrReadOnly)
	require.ErrorIs(t, d.Discard(0, 512), disk.ErrReadOnly)
	require.ErrorIs(t, d.WriteZeroes(0, 512, true), disk.ErrReadOnly)
	require.NoError(t, d.Flush())
	for _, off := range []int64{-1, 4096, 4095, 1<<63 - 1, -1 << 63} {
		require.ErrorIs(t, d.ReadAt([][]byte{make([]byte, 2)}, off), disk.ErrRange)
	}
	require.NoError(t, d.Close())
	d = open(t, path)
	require.ErrorIs(t, d.Discard(0, 1<<63-1), disk.ErrRange)
	require.ErrorIs(t, d.WriteZeroes(4096, 512, true), disk.ErrRange)
	require.ErrorIs(t, d.WriteZeroes(512, -512, true), disk.ErrRange)
	require.NoError(t, d.Close())
}

func TestBackingFilesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	create := func(name, backing, format string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, disk.Create(path, 1<<20, qcow2.CreateOptions{Backing: backing, BackingFormat: format}))
		return path
	}
	create("a", "b", "qcow2")
	b := create("b", "./a", "qcow2")
	require.ErrorIs(t, openError(t, b), disk.ErrBacking)
	require.ErrorIs(t, openError(t, create("self", "self", "")), disk.ErrBacking)
	require.ErrorIs(t, openError(t, create("net", "nbd://host/x", "raw")), disk.ErrBacking)
	require.ErrorIs(t, openError(t, create("json", `json:{"driver":"raw"}`, "raw")), disk.ErrBacking)
	require.ErrorIs(t, openError(t, create("vmdk", "x", "vmdk")), disk.ErrBacking)
	require.ErrorIs(t, openError(t, create("gone", "nothing", "raw")), os.ErrNotExist)
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		require.False(t, strings.HasPrefix(to, dir), "%s is still open", to)
	}
}

func TestSnapshotThrowsWritesAway(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	content := pattern(1<<20+512, 1)
	path := write(t, filepath.Join(t.TempDir(), "disk"), content)
	require.NoError(t, os.Chmod(path, 0o400))
	want := bytes.Clone(content)
	d := open(t, path+",snapshot=on,discard=on")
	require.False(t, d.ReadOnly())
	scribble(t, d, want, 5, 80)
	require.True(t, bytes.Equal(want, readAll(t, d)))
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, d.Close())
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	t.Setenv("TMPDIR", "/nowhere")
	require.ErrorContains(t, openError(t, path+",snapshot=on"), "TMPDIR")
}

// TestWorkers: several goroutines, each with its own part of every cluster.
func TestWorkers(t *testing.T) {
	const workers, size = 8, 4 << 20
	for _, options := range []string{",cache=unsafe", ",cache=direct"} {
		dir := t.TempDir()
		base := write(t, filepath.Join(dir, "base"), pattern(size, 3))
		path := filepath.Join(dir, "disk")
		require.NoError(t, disk.Create(path, size, qcow2.CreateOptions{ClusterBits: 14, Backing: "base", BackingFormat: "raw"}))
		d := open(t, path+",discard=on"+options)
		want := pattern(size, 3)
		_ = base
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				const stripe = 2048
				for i := range int64(size / stripe / workers) {
					off := (i*workers + int64(w)) * stripe
					p := want[off : off+stripe]
					var err error
					switch (i + int64(w)) % 5 {
					case 0:
						clear(p)
						err = d.WriteZeroes(off, stripe, true)
					case 1:
						err = d.Discard(off, stripe) // part of a cluster: nothing happens
					default:
						copy(p, pattern(stripe, uint64(off)))
						err = d.WriteAt([][]byte{p}, off)
					}
					if err == nil && i%100 == 0 {
						err = d.Flush()
					}
					got := make([]byte, stripe)
					if err == nil {
						err = d.ReadAt([][]byte{got}, off)
					}
					if err != nil || !bytes.Equal(p, got) {
						t.Errorf("worker %d at %#x: %v", w, off, err)
						return
					}
				}
			})
		}
		wg.Wait()
		require.True(t, bytes.Equal(want, readAll(t, d)))
		require.NoError(t, d.Close())
		clean(t, path)
	}
}

// TestAFullHost: the file may not grow. Requests fail, the rest works, and goes
// on when there is room again.
func TestAFullHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, disk.Create(path, 4<<20, qcow2.CreateOptions{ClusterBits: 12}))
	d := open(t, path)
	p := bytes.Repeat([]byte{1}, 64<<10)
	require.NoError(t, d.WriteAt([][]byte{p}, 0))

	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 256 << 10, Max: old.Max}))
	var err error
	for off := int64(64 << 10); off < 1<<20 && err == nil; off += 64 << 10 {
		err = d.WriteAt([][]byte{p}, off)
	}
	flush := d.Flush()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &old))
	require.ErrorIs(t, err, syscall.EFBIG)
	require.NoError(t, flush)

	require.NoError(t, d.WriteAt([][]byte{p}, 2<<20))
	got := make([]byte, len(p))
	require.NoError(t, d.ReadAt([][]byte{got}, 2<<20))
	require.Equal(t, p, got)
	require.NoError(t, d.Close())
	clean(t, path)
}

// TestBlockDevices uses a loop device, where the host gives one.
func TestBlockDevices(t *testing.T) {
	image := write(t, filepath.Join(t.TempDir(), "disk"), pattern(1<<20, 1))
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Skip("no loop device")
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command("losetup", "--detach", device).Run()) })
	for _, options := range []string{",discard=on", ",cache=direct,discard=on"} {
		d := open(t, device+options)
		require.EqualValues(t, 1<<20, d.Size())
		require.Equal(t, 512, d.Topology().Logical)
		want := readAll(t, d)
		scribble(t, d, want, 9, 100)
		require.True(t, bytes.Equal(want, readAll(t, d)))
		require.NoError(t, d.Close())
	}
}
