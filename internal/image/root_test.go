package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
)

// never is a builder that must not be called.
func never(t testing.TB) func(context.Context, *os.File, []Layer) error {
	return func(context.Context, *os.File, []Layer) error {
		t.Error("it is built again")
		return errors.New("no")
	}
}

func TestRoot(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	i := pull(t, s, h.push(t, "x", "1", b))
	f, err := s.Root(context.Background(), i, "list-1", listing(0))
	require.NoError(t, err)
	defer f.Close()
	text, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Contains(t, string(text), sum(b.tars[2]).String())
	require.True(t, filepath.IsAbs(f.Name()))
	again, err := s.Root(context.Background(), i, "list-1", never(t))
	require.NoError(t, err)
	require.NoError(t, again.Close())
	other, err := s.Root(context.Background(), i, "list-2", listing(0))
	require.NoError(t, err, "another format is another root")
	require.NotEqual(t, f.Name(), other.Name())
	require.NoError(t, other.Close())

	// The same layers with another config are the same root.
	j := pull(t, s, h.push(t, "x", "2", anImage(t, 1, func(_ *built, c *v1.ConfigFile) { c.Config.Env = []string{"A=1"} })))
	require.NotEqual(t, i.ID, j.ID)
	same, err := s.Root(context.Background(), j, "list-1", never(t))
	require.NoError(t, err)
	require.NoError(t, same.Close())
	_, err = s.Root(context.Background(), i, "../x", listing(0))
	require.ErrorContains(t, err, "format")
}

// TestRootFails: nothing is left of what was not finished, and the next can.
func TestRootFails(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	i := pull(t, s, h.push(t, "x", "1", b))
	bad := errors.New("bad")
	_, err := s.Root(context.Background(), i, "list-1", func(_ context.Context, w *os.File, _ []Layer) error {
		_, err := w.WriteString("a part")
		return errors.Join(err, bad)
	})
	require.ErrorIs(t, err, bad)
	require.Empty(t, s.files(t, "roots"))
	ctx, cancel := context.WithCancel(context.Background())
	_, err = s.Root(ctx, i, "list-1", func(_ context.Context, w *os.File, _ []Layer) error {
		cancel()
		_, err := w.WriteString("whole, but late")
		return err
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, s.files(t, "roots"))

	// One that was killed leaves a draft.
	require.NoError(t, os.WriteFile(s.path("roots", "list-1", rootName(i.record)+draftSuffix), []byte(strings.Repeat("x", 10_000)), 0o600))
	f, err := s.Root(context.Background(), i, "list-1", listing(0))
	require.NoError(t, err)
	text, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NotContains(t, string(text), "xxx")
	require.Len(t, s.files(t, "roots"), 1)
}

// TestDamagedLayer: a root is not made of one, whether the builder reads to the end or not.
func TestDamagedLayer(t *testing.T) {
	for n := range 3 {
		h, s := newHub(t), newStore(t)
		b := anImage(t, 1)
		name := h.push(t, "x", "1", b)
		i := pull(t, s, name)
		damage(t, s.blobPath(i.record.Layers[n].Digest))
		_, err := s.Root(context.Background(), i, "list-1", listing(0))
		require.Error(t, err, "layer %d", n)
		require.ErrorContains(t, err, "was damaged and is removed; pull the image again")
		require.Empty(t, s.files(t, "roots"))

		_, err = s.Root(context.Background(), i, "list-1", never(t))
		require.ErrorContains(t, err, "missing")
		_, err = s.Find(context.Background(), name, Never, quick())
		require.ErrorContains(t, err, "missing")
		j, err := s.Find(context.Background(), name, Missing, quick())
		require.NoError(t, err, "it is fetched again")
		requireImage(t, s, j, b)
	}
}

func TestLayerReader(t *testing.T) {
	h, s := newHub(t), newStore(t)
	i := pull(t, s, h.push(t, "x", "1", anImage(t, 1)))
	layers, err := s.Layers(i)
	require.NoError(t, err)
	l := layers[1]
	r, err := l.Open()
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 100))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.False(t, l.read.Load(), "a part is no verdict")
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrClosed)
	l.TarSize = 1000
	require.ErrorIs(t, l.verify(context.Background()), ErrDigest, "more than there should be")
	l = layers[1]
	l.DiffID = layers[0].DiffID
	require.ErrorIs(t, l.verify(context.Background()), ErrDigest)
	require.NoError(t, layers[1].verify(context.Background()))
	require.True(t, layers[1].read.Load())
}

func TestFind(t *testing.T) {
	h, s := newHub(t), newStore(t)
	one, two := anImage(t, 1), anImage(t, 2)
	name := h.push(t, "x", "1", one)
	ctx := context.Background()
	_, err := s.Find(ctx, name, Never, quick())
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "not to be pulled")
	require.Empty(t, h.requests(""))
	i, err := s.Find(ctx, name, Missing, quick())
	require.NoError(t, err)
	require.Equal(t, one.id(), i.ID)
	h.push(t, "x", "1", two)
	h.requests("")
	for _, same := range []string{name, one.id().Hex[:10], one.id().String()} {
		for _, policy := range []Policy{Missing, Never} {
			i, err = s.Find(ctx, same, policy, quick())
			require.NoError(t, err)
			require.Equal(t, one.id(), i.ID)
		}
	}
	require.Empty(t, h.requests(""))
	i, err = s.Find(ctx, name, Always, quick())
	require.NoError(t, err)
	require.Equal(t, two.id(), i.ID)
	_, err = s.Find(ctx, "sha256:0123", Missing, quick())
	require.ErrorIs(t, err, ErrNotFound)
	_, err = s.Find(ctx, "UPPER", Missing, quick())
	require.ErrorIs(t, err, ErrName)
	_, err = s.Find(ctx, h.host+"/nosuch", Missing, quick())
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "registry")
}

func TestLocksWaitAndEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := lockFile(context.Background(), path, exclusive)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = lockFile(ctx, path, shared)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	got := make(chan *os.File)
	go func() {
		g, _ := lockFile(context.Background(), path, exclusive)
		got <- g
	}()
	require.NoError(t, os.Rename(path, path+".done"))
	g := <-got
	require.NotNil(t, g, "who waits for a name does not wait for a file that had it")
	require.True(t, isAt(g, path))
	require.NoError(t, g.Close())
	require.NoError(t, f.Close())
}

// BenchmarkFindAndRoot is what husk run asks of a store for an image that is there.
func BenchmarkFindAndRoot(b *testing.B) {
	h, s := newHub(b), newStore(b)
	var name string
	for n := range 20 {
		image := anImage(b, 1, func(_ *built, c *v1.ConfigFile) { c.Config.Env = []string{strings.Repeat("x", n)} })
		name = h.push(b, "x", string(rune('a'+n)), image)
		pull(b, s, name)
	}
	for b.Loop() {
		i, err := s.Find(context.Background(), name, Missing, quick())
		require.NoError(b, err)
		f, err := s.Root(context.Background(), i, "list-1", listing(0))
		require.NoError(b, err)
		require.NoError(b, f.Close())
	}
}
