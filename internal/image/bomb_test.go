package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
)

// zeros is a zstd stream with so many times 128 KiB of zeros, each in 4 bytes (RFC 8878 §3.1.1).
func zeros(blocks int) []byte {
	const size, rle = 128 << 10, 1
	p := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3}
	for n := range blocks {
		head := size<<3 | rle<<1
		if n == blocks-1 {
			head |= 1
		}
		p = append(p, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	return p
}

// TestBomb: a layer of 32 KiB that is more than 1 GiB is none.
func TestBomb(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1, func(b *built, c *v1.ConfigFile) {
		b.layers, b.types = [][]byte{zeros(1<<13 + 1)}, []types.MediaType{types.OCILayerZStd}
		c.RootFS.DiffIDs = []v1.Hash{sum([]byte("x"))}
	})
	_, err := s.Pull(context.Background(), h.push(t, "x", "1", b), quick())
	require.ErrorIs(t, err, ErrFormat)
	require.ErrorContains(t, err, "more than 1024 MiB are in it")
	require.Empty(t, s.files(t, "partial"))
}

func TestMaxUnpacked(t *testing.T) {
	for packed, most := range map[int64]int64{0: 1 << 30, 1000: 1 << 30, 10 << 20: 12000 << 20, 100 << 30: 1 << 40, 1 << 62: 1 << 62} {
		got := maxUnpacked(packed)
		require.LessOrEqual(t, got, most)
		require.Greater(t, got, most-most/100)
	}
	r := bounded{bytes.NewReader(zeros(1)), new(int64), func() int64 { return 9 }}
	_, err := io.ReadAll(r)
	require.ErrorIs(t, err, ErrFormat)
}

// TestUnpackingEnds: it ends with its context, however little it needs of the stream.
func TestUnpackingEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	c, err := newChecker(ctx, "sha256", "sha256", 1<<40)
	require.NoError(t, err)
	cancel()
	_, _ = c.Write(zeros(100))
	_, tar := c.finish()
	require.ErrorIs(t, tar.err, context.Canceled)
}

// TestRootTooLarge: a root for which there is no room is not begun.
func TestRootTooLarge(t *testing.T) {
	h, s := newHub(t), newStore(t)
	i := pull(t, s, h.push(t, "x", "1", anImage(t, 1)))
	i.record.Layers[0].TarSize = 1 << 60
	_, err := s.Root(context.Background(), i, "list-1", func(context.Context, *os.File, []Layer) error {
		t.Error("it is built")
		return nil
	})
	require.ErrorContains(t, err, "MiB are needed")
	require.ErrorContains(t, err, s.dir)
	require.Empty(t, s.files(t, "roots"))
}
