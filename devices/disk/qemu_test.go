package disk_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/disk/qcow2"
)

// qemuImg runs qemu-img, and skips the test where there is none.
func qemuImg(t testing.TB, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("no qemu-img (package qemu-utils)")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	require.NoError(t, err, "qemu-img %s: %s", strings.Join(args, " "), out)
	return string(out)
}

// clean requires that qemu-img check finds nothing.
func clean(t testing.TB, path string) {
	t.Helper()
	require.Contains(t, qemuImg(t, "check", path), "No errors were found")
}

func open(t testing.TB, spec string) *disk.Disk {
	t.Helper()
	s, err := disk.ParseSpec(spec)
	require.NoError(t, err)
	d, err := disk.Open(s, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return d
}

func readAll(t testing.TB, d *disk.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	require.NoError(t, d.ReadAt([][]byte{p}, 0))
	return p
}

// pattern is half noise, some of it compressible, with holes.
func pattern(size int, seed uint64) []byte {
	p := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 0))
	for off := 0; off < size; off += 8192 {
		chunk := p[off:min(off+8192, size)]
		switch r.IntN(3) {
		case 0:
			for i := range chunk {
				chunk[i] = byte(r.Uint32())
			}
		case 1:
			copy(chunk, bytes.Repeat(fmt.Appendf(nil, "husk %d ", off), len(chunk)))
		}
	}
	return p
}

func write(t testing.TB, path string, p []byte) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, p, 0o600))
	return path
}

// scribble does random things to a disk, and to want what they mean.
func scribble(t testing.TB, d *disk.Disk, want []byte, seed uint64, n int) {
	r := rand.New(rand.NewPCG(seed, 2))
	for range n {
		off := r.Int64N(int64(len(want))/512) * 512
		size := min(int64(len(want))-off, 512*(1+r.Int64N(300)))
		p := want[off : off+size]
		switch r.IntN(7) {
		case 0, 1, 2:
			copy(p, pattern(len(p), r.Uint64()))
			require.NoError(t, d.WriteAt([][]byte{p[:size/2], p[size/2:]}, off))
		case 3:
			clear(p)
			require.NoError(t, d.WriteZeroes(off, size, r.IntN(2) == 0))
		case 4:
			require.NoError(t, d.Discard(off, size))
			require.NoError(t, d.ReadAt([][]byte{p}, off))
		case 5:
			require.NoError(t, d.Flush())
		case 6:
			got := make([]byte, size)
			require.NoError(t, d.ReadAt([][]byte{got}, off))
			require.True(t, bytes.Equal(p, got))
		}
	}
}

const testSize = 3<<20 + 512

// TestImagesOfQemuImg: whatever qemu-img makes, we read as it does, write to,
// and qemu-img finds nothing to complain about, and reads what we wrote.
func TestImagesOfQemuImg(t *testing.T) {
	qemuImg(t, "--version")
	content := pattern(testSize, 1)
	for i, options := range []string{
		"compat=0.10", "compat=1.1", "compat=1.1,lazy_refcounts=on",
		"cluster_size=512", "cluster_size=4k", "cluster_size=2M", "compat=0.10,cluster_size=512",
		"refcount_bits=1", "refcount_bits=2,cluster_size=1k", "refcount_bits=8", "refcount_bits=64,cluster_size=512",
		"preallocation=metadata", "preallocation=falloc", "preallocation=full", "preallocation=metadata,cluster_size=512",
		"-c compat=0.10", "-c compression_type=zlib", "-c compression_type=zstd", "-c cluster_size=512", "-c cluster_size=2M",
		"-c cluster_size=4k,compression_type=zstd", "-c refcount_bits=64",
		"snapshot", "snapshot compat=0.10,cluster_size=4k", "snapshot -c cluster_size=16k", "snapshot cluster_size=512,refcount_bits=2",
	} {
		if testing.Short() && i%5 != 0 {
			continue
		}
		t.Run(strings.ReplaceAll(options, ",", "+"), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.qcow2")
			args := []string{"convert", "-f", "raw", "-O", "qcow2"}
			opts, snapshot := strings.CutPrefix(options, "snapshot")
			if o, found := strings.CutPrefix(strings.TrimSpace(opts), "-c "); found {
				args, opts = append(args, "-c"), o
			}
			if opts = strings.TrimSpace(opts); opts != "" {
				args = append(args, "-o", opts)
			}
			qemuImg(t, append(args, write(t, filepath.Join(dir, "raw"), content), path)...)
			if snapshot {
				qemuImg(t, "snapshot", "-c", "before", path)
			}
			d := open(t, path+",format=qcow2,discard=on,cache=unsafe")
			require.True(t, bytes.Equal(content, readAll(t, d)), "what qemu-img wrote")
			want := bytes.Clone(content)
			scribble(t, d, want, 3, 150)
			require.True(t, bytes.Equal(want, readAll(t, d)))
			require.NoError(t, d.Close())
			clean(t, path)
			qemuImg(t, "compare", "-f", "raw", "-F", "qcow2", write(t, filepath.Join(dir, "want"), want), path)
			if snapshot {
				qemuImg(t, "convert", "-l", "before", "-f", "qcow2", "-O", "raw", path, filepath.Join(dir, "old"))
				old, err := os.ReadFile(filepath.Join(dir, "old"))
				require.NoError(t, err)
				require.True(t, bytes.Equal(content, old), "the snapshot has changed")
				qemuImg(t, "snapshot", "-d", "before", path)
				clean(t, path)
			}
		})
	}
}

// TestBackingChains: raw under qcow2 under qcow2, of different sizes, in
// another folder.
func TestBackingChains(t *testing.T) {
	qemuImg(t, "--version")
	for _, format := range []string{"raw", "qcow2"} {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, "base"), 0o700))
			content := pattern(1<<20, 4)
			base := write(t, filepath.Join(dir, "base", "0.raw"), content)
			if format == "qcow2" {
				qemuImg(t, "convert", "-c", "-O", "qcow2", base, filepath.Join(dir, "base", "0.qcow2"))
			}
			middle := filepath.Join(dir, "middle.qcow2")
			qemuImg(t, "create", "-f", "qcow2", "-b", "base/0."+format, "-F", format, "-o", "cluster_size=4k", middle, "1536k")
			top := filepath.Join(dir, "top.qcow2")
			qemuImg(t, "create", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", top, "2M")

			want := make([]byte, 1536<<10)
			copy(want, content)
			d := open(t, middle)
			require.True(t, bytes.Equal(want, readAll(t, d)))
			scribble(t, d, want, 5, 40)
			require.NoError(t, d.Close())

			want = append(want, make([]byte, 512<<10)...)
			d = open(t, top+",discard=on,cache=unsafe")
			require.True(t, bytes.Equal(want, readAll(t, d)))
			scribble(t, d, want, 6, 60)
			require.NoError(t, d.Close())
			for _, path := range []string{middle, top} {
				clean(t, path)
			}
			qemuImg(t, "compare", "-f", "raw", "-F", "qcow2", write(t, filepath.Join(dir, "want"), want), top)
			got, err := os.ReadFile(base)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, got), "the base has changed")
		})
	}
}

// TestOurImagesInQemu: what Create makes, qemu-img reads.
func TestOurImagesInQemu(t *testing.T) {
	qemuImg(t, "--version")
	for _, o := range []qcow2.CreateOptions{
		{}, {Version: 2}, {ClusterBits: 9}, {ClusterBits: 9, RefcountBits: 64}, {ClusterBits: 21}, {ClusterBits: 12, RefcountBits: 1},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.qcow2")
			require.NoError(t, disk.Create(path, testSize, o))
			clean(t, path)
			d := open(t, path+",discard=on,cache=unsafe")
			want := make([]byte, testSize)
			scribble(t, d, want, 7, 150)
			require.NoError(t, d.Close())
			clean(t, path)
			qemuImg(t, "compare", "-f", "raw", "-F", "qcow2", write(t, filepath.Join(dir, "want"), want), path)
		})
	}
	dir := t.TempDir()
	require.NoError(t, disk.Create(filepath.Join(dir, "base.qcow2"), 1<<20, qcow2.CreateOptions{}))
	top := filepath.Join(dir, "top.qcow2")
	require.NoError(t, disk.Create(top, 1<<20, qcow2.CreateOptions{Backing: "base.qcow2", BackingFormat: "qcow2"}))
	info := qemuImg(t, "info", "--backing-chain", top)
	require.Contains(t, info, "backing file format: qcow2")
	clean(t, top)
	require.ErrorIs(t, disk.Create(top, 1<<20, qcow2.CreateOptions{}), os.ErrExist)
	// A terabyte with small clusters has a long L1 table, and no long file.
	big := filepath.Join(dir, "big.qcow2")
	require.NoError(t, disk.Create(big, 1<<40, qcow2.CreateOptions{ClusterBits: 12}))
	clean(t, big)
}

// TestLocks: we and QEMU refuse each other.
func TestLocks(t *testing.T) {
	dir := t.TempDir()
	for _, format := range []string{"qcow2", "raw"} {
		path := filepath.Join(dir, format)
		if format == "raw" {
			write(t, path, make([]byte, 1<<20))
		} else {
			require.NoError(t, disk.Create(path, 1<<20, qcow2.CreateOptions{}))
		}
		refused := func(spec string) {
			t.Helper()
			s, err := disk.ParseSpec(spec)
			require.NoError(t, err)
			_, err = disk.Open(s, slog.New(slog.DiscardHandler))
			require.ErrorIs(t, err, disk.ErrInUse)
			require.ErrorContains(t, err, path)
		}
		d := open(t, path)
		refused(path)
		refused(path + ",ro")
		refused(path + ",snapshot=on")
		unlocked, err := disk.Open(disk.Spec{File: path, ReadOnly: true, Unlocked: true}, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.NoError(t, unlocked.Close())
		require.NoError(t, d.Close())

		d = open(t, path+",ro")
		e := open(t, path+",snapshot=on")
		refused(path)
		require.NoError(t, e.Close())
		require.NoError(t, d.Close())

		qemuIO, err := exec.LookPath("qemu-io")
		if err != nil {
			continue
		}
		try := func(args ...string) string {
			out, _ := exec.Command(qemuIO, append(args, "-f", format, "-c", "read 0 512", path)...).CombinedOutput()
			return string(out)
		}
		d = open(t, path)
		require.Contains(t, try(), "lock")
		if format == "qcow2" { // a raw image that changes is fine with qemu-io
			require.Contains(t, try("-r"), "lock")
		}
		require.NoError(t, d.Close())
		d = open(t, path+",ro")
		require.Contains(t, try(), "lock")
		require.Contains(t, try("-r"), "read 512/512")
		require.NoError(t, d.Close())

		// And the other way round.
		cmd := exec.Command(qemuIO, "-f", format, path)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = fmt.Fprintln(in, "read 0 512")
		require.NoError(t, err)
		_, err = out.Read(make([]byte, 1))
		require.NoError(t, err)
		refused(path)
		refused(path + ",ro")
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait())
		require.NoError(t, open(t, path).Close())
	}
}
