package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// layerOf makes a layer of an archive's bytes.
func layerOf(archive []byte) Layer {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }
}

// archive makes an archive of entries.
func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if e.content != "" {
			h.Size = int64(len(e.content))
		}
		require.NoError(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, e.content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

type entry struct {
	tar.Header
	content string
}

// build makes an image and gives its file.
func build(t testing.TB, layers ...Layer) (string, Stats, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	stats, err := Build(context.Background(), f, layers)
	return path, stats, err
}

func TestSameLayersGiveTheSameBytes(t *testing.T) {
	layer := layerOf(archive(t,
		entry{tar.Header{Name: "a", Mode: 0o644}, "hello"},
		entry{tar.Header{Name: "b/c", Mode: 0o4755}, string(make([]byte, 10000)) + "x"},
		entry{tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "a"}, ""},
	))
	first, _, err := build(t, layer, layer)
	require.NoError(t, err)
	second, _, err := build(t, layer, layer)
	require.NoError(t, err)
	a, err := os.ReadFile(first)
	require.NoError(t, err)
	b, err := os.ReadFile(second)
	require.NoError(t, err)
	require.Equal(t, a, b)
}
