package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A reader is a layer that a test watches.
type reader struct {
	io.Reader
	closed bool
	err    error // of Close
}

func (r *reader) Close() error {
	r.closed = true
	return r.err
}

func (r *reader) open() (io.ReadCloser, error) { return r, nil }

func TestLayersAreReadToTheirEndAndClosed(t *testing.T) {
	behind := strings.NewReader(strings.Repeat("behind the archive's end", 100000))
	r := &reader{Reader: io.MultiReader(strings.NewReader(string(pack(t, file("a", "1")))), behind)}
	_, _, err := build(t, r.open)
	require.NoError(t, err)
	require.Zero(t, behind.Len())
	require.True(t, r.closed)
}

func TestLayersThatCannotBeRead(t *testing.T) {
	broken := errors.New("the wrong digest")
	good := layerOf(pack(t, file("a", "1")))
	archive := string(pack(t, file("a", "1"), file("b/c", strings.Repeat("x", 5000))))
	for name, c := range map[string]struct {
		r    *reader
		want string
	}{
		"at its start":        {&reader{Reader: errorReader{broken}}, "after 0 entries: the wrong digest"},
		"at its end":          {&reader{Reader: io.MultiReader(strings.NewReader(archive), errorReader{broken})}, "layer 2 of 2: the wrong digest"},
		"when it is closed":   {&reader{Reader: strings.NewReader(archive), err: broken}, "layer 2 of 2: the wrong digest"},
		"in a file's content": {&reader{Reader: io.MultiReader(strings.NewReader(archive[:2000]), errorReader{broken})}, "layer 2 of 2: b/c: not a usable image layer: the wrong digest"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := build(t, good, c.r.open)
			require.ErrorIs(t, err, broken)
			require.ErrorContains(t, err, c.want)
			require.True(t, c.r.closed)
		})
	}
	t.Run("that do not open", func(t *testing.T) {
		_, _, err := build(t, good, func() (io.ReadCloser, error) { return nil, broken })
		require.EqualError(t, err, "layer 2 of 2: the wrong digest")
	})
	t.Run("that are cut off", func(t *testing.T) {
		// Between two entries archive/tar takes the missing end for one, as tar(1) does.
		for _, cut := range []int{1, 511, 512, 1025, 1535, 1536, 4096, 6535} {
			_, _, err := build(t, layerOf([]byte(archive[:cut])))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, cut)
		}
	})
	t.Run("that are no archives", func(t *testing.T) {
		_, _, err := build(t, layerOf([]byte(strings.Repeat("no archive ", 100))))
		require.ErrorIs(t, err, ErrLayer)
	})
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// A reader that never ends is stopped by its context, in whatever it is.
func TestCancelled(t *testing.T) {
	archive := pack(t, file("a", "1"))
	for name, start := range map[string][]byte{
		"in a file's content":        append(sum(header("a", '0', 1<<40, false)), make([]byte, 100)...),
		"in a whiteout's content":    append(sum(header(".wh.a", '0', 1<<40, false)), make([]byte, 100)...),
		"behind the archive's end":   archive,
		"between an archive's files": nil,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r := &reader{Reader: &endless{start: start, repeat: archive[:1024], after: 4 << 20, then: cancel}}
			f, err := os.Create(filepath.Join(t.TempDir(), "image"))
			require.NoError(t, err)
			defer f.Close()
			_, err = Build(ctx, f, []Layer{r.open})
			require.ErrorIs(t, err, context.Canceled)
			require.True(t, r.closed)
		})
	}
}

// An endless reader gives its start, and then the same for ever.
type endless struct {
	start, repeat []byte
	at, after     int
	then          func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.at += len(p); e.at > e.after {
		e.then()
	}
	if len(e.start) > 0 {
		n := copy(p, e.start)
		e.start = e.start[n:]
		return n, nil
	}
	n := copy(p, e.repeat)
	e.repeat = append(e.repeat[n:len(e.repeat):len(e.repeat)], e.repeat[:n]...)
	return n, nil
}

// A file system of a few pages has no room for an image.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts file systems")
	}
	runtime.LockOSThread() // and never unlocked: the thread is of no use to others
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skip("no mount namespace: ", err)
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	folder := t.TempDir()
	require.NoError(t, unix.Mount("none", folder, "tmpfs", 0, "size=64k"))
	defer func() { require.NoError(t, unix.Unmount(folder, 0)) }()
	for _, c := range []struct { // in this goroutine: another one has another thread
		content string
		want    string
	}{
		{strings.Repeat("x", 2<<20), "layer 1 of 1: a: write the image: write " + folder},
		{strings.Repeat("x", 65000), "write the image: write " + folder}, // with the inodes
	} {
		f, err := os.Create(filepath.Join(folder, "image"))
		require.NoError(t, err)
		_, err = Build(context.Background(), f, layersOf(t, []entry{file("a", c.content), link("l", strings.Repeat("t", 4000))}))
		require.ErrorIs(t, err, unix.ENOSPC)
		require.ErrorContains(t, err, c.want)
		require.NotErrorIs(t, err, ErrLayer)
		require.NoError(t, f.Close())
		require.NoError(t, os.Remove(f.Name()))
	}
}

func TestNotAFile(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	_, err = Build(context.Background(), w, nil)
	require.ErrorContains(t, err, "empty the image's file")

	name := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	_, err = Build(context.Background(), f, nil)
	require.Error(t, err)
}

// What an image had is gone: its file may be used again.
func TestBuildAgain(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	require.NoError(t, err)
	defer f.Close()
	for _, content := range []string{strings.Repeat("long", 100000), "short"} {
		_, err = Build(context.Background(), f, layersOf(t, []entry{file("a", content)}))
		require.NoError(t, err)
	}
	require.Equal(t, tree{"a": `file "short"`}, list(t, f.Name()))
	again, _, err := build(t, layersOf(t, []entry{file("a", "short")})...)
	require.NoError(t, err)
	a, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	b, err := os.ReadFile(again)
	require.NoError(t, err)
	require.Equal(t, a, b)
}

// The room of files that later layers replace is given back.
func TestReplacedContentTakesNoRoom(t *testing.T) {
	var layers [][]entry
	for i := range 10 {
		layers = append(layers, []entry{file("a", strings.Repeat(string(rune('a'+i)), 1<<20))})
	}
	image, stats, err := build(t, layersOf(t, layers...)...)
	require.NoError(t, err)
	require.Greater(t, stats.Size, int64(10<<20))
	require.Equal(t, int64(1<<20), stats.Content)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(image, &st))
	require.Less(t, st.Blocks*512, int64(2<<20))
}

// deep has entries in folders of their own, each of 2000 directories that have no entries.
func deep(t tester, first, n int) Layer {
	t.Helper()
	var entries []entry
	for i := range n {
		entries = append(entries, file(fmt.Sprintf("%d/%sx", first+i, strings.Repeat("d/", 1999)), ""))
	}
	return layerOf(pack(t, entries...))
}

// Directories without entries cost memory, and an archive has little of them: there are at
// most 65536 and 16 for each entry, in all layers together.
func TestImpliedDirectories(t *testing.T) {
	_, stats, err := buildInMemory(t, deep(t, 0, 20), deep(t, 20, 13))
	require.NoError(t, err)
	require.Equal(t, 33*2000+1, stats.Directories)

	for name, layers := range map[string][]Layer{
		"in one layer": {deep(t, 0, 100)},
		"in several":   {deep(t, 0, 20), deep(t, 20, 80)},
		"replaced":     {deep(t, 0, 20), layerOf(pack(t, file(".wh..wh..opq", ""))), deep(t, 20, 80)},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := buildInMemory(t, layers...)
			require.ErrorIs(t, err, ErrLayer)
			require.ErrorContains(t, err, `: 33/d/d/`)
			require.ErrorContains(t, err, "directories that have no entries of their own")
		})
	}

	// A link's target makes directories, too.
	var entries []entry
	for i := range 100 {
		at := fmt.Sprintf("%d", i)
		entries = append(entries, link("l"+at, at+"/"+strings.Repeat("d/", 2000)), file("l"+at+"/x", ""))
	}
	_, _, err = buildInMemory(t, layersOf(t, entries)...)
	require.ErrorIs(t, err, ErrLayer)
	require.ErrorContains(t, err, "l33/x: ")

	// Those that do have entries, and those that many entries share, are not counted.
	entries = nil
	for i := range 70000 {
		entries = append(entries, dir(fmt.Sprintf("a/b/%d", i), 0o755))
	}
	_, stats, err = buildInMemory(t, layersOf(t, entries)...)
	require.NoError(t, err)
	require.Equal(t, 70003, stats.Directories)
}
