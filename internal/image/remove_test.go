package image

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
)

func remove(t testing.TB, s *Store, name string, force bool) Removal {
	done, err := s.Remove(context.Background(), name, force)
	require.NoError(t, err)
	return done
}

// TestRemove: with the last name goes the image, and what no other needs.
func TestRemove(t *testing.T) {
	h, s := newHub(t), newStore(t)
	one := anImage(t, 1)
	two := anImage(t, 1, func(b *built, c *v1.ConfigFile) {
		b.layers, b.tars, b.types = b.layers[:2], b.tars[:2], b.types[:2]
		c.Config.Env = []string{"A=1"}
	})
	first, second := h.push(t, "one", "1", one), h.push(t, "two", "1", two)
	tagged := h.push(t, "one", "2", one)
	i, j := pull(t, s, first), pull(t, s, second)
	pull(t, s, tagged)
	root, err := s.Root(context.Background(), i, "list-1", listing(0))
	require.NoError(t, err)
	require.NoError(t, root.Close())

	done := remove(t, s, first, false)
	require.Equal(t, Removal{Untagged: []string{first}}, done)
	require.FileExists(t, root.Name())
	done = remove(t, s, tagged, false)
	require.Equal(t, []v1.Hash{one.id()}, done.Deleted)
	require.Equal(t, []string{tagged, h.host + "/one@" + sum(one.manifest).String()}, done.Untagged)
	require.NoFileExists(t, root.Name())
	require.NoFileExists(t, s.blobPath(sum(one.layers[2])))
	require.NoFileExists(t, s.blobPath(one.id()))
	requireImage(t, s, j, two)
	_, err = s.Root(context.Background(), i, "list-1", never(t))
	require.ErrorIs(t, err, ErrNotFound)

	remove(t, s, second, false)
	require.Empty(t, s.files(t, "blobs"))
	require.Empty(t, s.files(t, "roots"))
	require.NoFileExists(t, s.path("garbage"))
	_, err = s.Remove(context.Background(), second, true)
	require.ErrorIs(t, err, ErrNotFound)
}

func TestRemoveByID(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	first, second := h.push(t, "one", "1", b), h.push(t, "two", "1", b)
	pull(t, s, first)
	pull(t, s, second)
	_, err := s.Remove(context.Background(), b.id().Hex[:12], false)
	require.ErrorIs(t, err, ErrInUse)
	done := remove(t, s, b.id().Hex[:12], true)
	require.Len(t, done.Untagged, 4)
	require.Equal(t, []v1.Hash{b.id()}, done.Deleted)

	byDigest := h.host + "/one@" + sum(b.manifest).String()
	pull(t, s, byDigest)
	pull(t, s, first)
	require.Empty(t, remove(t, s, byDigest, false).Deleted, "it has a tag still")
	pull(t, s, byDigest)
	require.Len(t, remove(t, s, first, false).Deleted, 1)
	pull(t, s, byDigest)
	require.Len(t, remove(t, s, byDigest, false).Deleted, 1)
	require.Empty(t, s.files(t, "blobs"))
}

// TestRemoveByManifest: the digest of its own manifest names an image that came from a list.
func TestRemoveByManifest(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	_, list := h.pushList(t, "x", "1", map[string]*built{"linux/amd64": b})
	listed, own := h.host+"/x@"+sum(list).String(), h.host+"/x@"+sum(b.manifest).String()
	pull(t, s, listed)
	done := remove(t, s, own, false)
	require.Equal(t, Removal{Untagged: []string{listed}, Deleted: []v1.Hash{b.id()}}, done)
	require.Empty(t, s.files(t, "blobs"))
}

// TestRemoveBesidePull: a pull keeps what it has, and what could not be collected goes
// when it ends.
func TestRemoveBesidePull(t *testing.T) {
	h, s := newHub(t), newStore(t)
	one, two := anImage(t, 1), anImage(t, 2)
	first, second := h.push(t, "one", "1", one), h.push(t, "two", "1", two)
	pull(t, s, first)
	reached, goOn := make(chan struct{}), make(chan struct{})
	h.behave(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, sum(two.layers[1]).Hex) {
				close(reached)
				<-goOn
			}
			next.ServeHTTP(w, r)
		})
	})
	pulled := make(chan error, 1)
	go func() {
		_, err := s.Pull(context.Background(), second, quick())
		pulled <- err
	}()
	<-reached
	require.Len(t, remove(t, s, first, false).Deleted, 1)
	require.FileExists(t, s.path("garbage"))
	close(goOn)
	require.NoError(t, <-pulled)
	i, err := s.Get(second)
	require.NoError(t, err)
	requireImage(t, s, i, two)
	require.NoFileExists(t, s.path("garbage"))
	require.NoFileExists(t, s.blobPath(one.id()))
	require.Len(t, s.files(t, "blobs"), 2+2*len(two.layers), "its config, its manifest, its layers and what is in them")
}

// TestRemoveBesideRun: a root that someone is about to open by its name stays until then.
func TestRemoveBesideRun(t *testing.T) {
	h, s := newHub(t), newStore(t)
	name := h.push(t, "x", "1", anImage(t, 1))
	i := pull(t, s, name)
	f, err := s.Root(context.Background(), i, "list-1", listing(0))
	require.NoError(t, err)
	remove(t, s, name, false)
	opened, err := os.Open(f.Name())
	require.NoError(t, err)
	defer opened.Close()
	require.NoError(t, f.Close())
	// Anybody who adds or removes collects it later.
	other := pull(t, s, h.push(t, "y", "1", anImage(t, 2)))
	require.NotNil(t, other)
	require.Empty(t, s.files(t, "roots"))
	_, err = opened.Stat()
	require.NoError(t, err)
}

// TestOldPartials: what was left of a pull stays for a day.
func TestOldPartials(t *testing.T) {
	h, s := newHub(t), newStore(t)
	for name, age := range map[string]int64{"new": 0, "old": 25 * 3600} {
		path := s.path("partial", name)
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
		info, err := os.Stat(path)
		require.NoError(t, err)
		then := info.ModTime().Add(-1e9 * 1)
		if age > 0 {
			then = info.ModTime().Add(-keepPartial - 1e9)
		}
		require.NoError(t, os.Chtimes(path, then, then))
	}
	name := h.push(t, "x", "1", anImage(t, 1))
	require.NoError(t, os.MkdirAll(s.path("roots", "list-1"), 0o700))
	drafts := []string{s.path(".index.json.123"), s.path("blobs", "sha256", ".draft-1"), s.path("roots", "list-1", "x"+draftSuffix)}
	for _, path := range drafts {
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	pull(t, s, name)
	require.Equal(t, []string{"partial/new"}, s.files(t, "partial"), "nobody has removed an image")
	for _, path := range drafts {
		require.NoFileExists(t, path)
	}
}

// TestOldRoots: those of another version of husk go when one is built, unless they are used.
func TestOldRoots(t *testing.T) {
	h, s := newHub(t), newStore(t)
	i := pull(t, s, h.push(t, "x", "1", anImage(t, 1)))
	old, err := s.Root(context.Background(), i, "list-1", listing(0))
	require.NoError(t, err)
	other, err := s.Root(context.Background(), i, "list-2", listing(0))
	require.NoError(t, err)
	require.FileExists(t, old.Name())
	require.NoError(t, old.Close())
	third, err := s.Root(context.Background(), i, "list-3", listing(0))
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Dir(old.Name()))
	require.FileExists(t, other.Name())
	require.NoError(t, other.Close())
	require.NoError(t, third.Close())
}
