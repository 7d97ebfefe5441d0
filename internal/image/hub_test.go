package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if child := os.Getenv("HUSK_IMAGE_TEST_CHILD"); child != "" {
		os.Exit(runChild(child))
	}
	goleak.VerifyTestMain(m)
}

// A built is an image that a test has made, as bytes.
type built struct {
	t                testing.TB
	config, manifest []byte
	configType       types.MediaType
	manifestType     types.MediaType
	layers           [][]byte // as blobs
	tars             [][]byte
	types            []types.MediaType
}

// sum is the digest of bytes.
func sum(b []byte) v1.Hash {
	h, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return h
}

// tarOf is a tar with files.
func tarOf(t testing.TB, files map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := []string{}
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(files[name])), Mode: 0o644, Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(files[name]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gzipOf(t testing.TB, p []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(p)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func zstdOf(t testing.TB, p []byte) []byte {
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(p, nil)
}

// noise is bytes that do not compress, the same for each seed.
func noise(seed, n int) string {
	b := make([]byte, n)
	x := uint64(seed)*2654435761 + 88172645463325252
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

// anImage is one with a layer in each way to pack it.
func anImage(t testing.TB, seed int, change ...func(*built, *v1.ConfigFile)) *built {
	b := &built{t: t, configType: types.OCIConfigJSON, manifestType: types.OCIManifestSchema1}
	for n, name := range []string{"plain", "gzip", "zstd"} {
		b.tars = append(b.tars, tarOf(t, map[string]string{name: noise(seed*10+n, 200_000)}))
	}
	b.layers = [][]byte{b.tars[0], gzipOf(t, b.tars[1]), zstdOf(t, b.tars[2])}
	b.types = []types.MediaType{types.OCIUncompressedLayer, types.OCILayer, types.OCILayerZStd}
	c := &v1.ConfigFile{OS: "linux", Architecture: "amd64", Created: v1.Time{Time: time.Unix(1_700_000_000+int64(seed), 0).UTC()}}
	c.Config.Cmd = []string{"/bin/sh", fmt.Sprint(seed)}
	c.RootFS.Type = "layers"
	for _, f := range change {
		f(b, c)
	}
	if len(c.RootFS.DiffIDs) == 0 {
		for _, p := range b.tars {
			c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, sum(p))
		}
	}
	var err error
	b.config, err = json.Marshal(c)
	require.NoError(t, err)
	b.seal(t)
	return b
}

// seal makes the manifest.
func (b *built) seal(t testing.TB) {
	m := v1.Manifest{SchemaVersion: 2, MediaType: b.manifestType, Config: v1.Descriptor{MediaType: b.configType, Size: int64(len(b.config)), Digest: sum(b.config)}}
	for n, l := range b.layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: b.types[n], Size: int64(len(l)), Digest: sum(l)})
	}
	var err error
	b.manifest, err = json.Marshal(m)
	require.NoError(t, err)
}

func (b *built) id() v1.Hash { return sum(b.config) }

// forPlatform makes an image for another platform.
func forPlatform(os, arch, variant string) func(*built, *v1.ConfigFile) {
	return func(_ *built, c *v1.ConfigFile) { c.OS, c.Architecture, c.Variant = os, arch, variant }
}

// A testHub is a registry of the test's, and what it was asked.
type testHub struct {
	*httptest.Server
	host string

	mu    sync.Mutex
	asked []string // "GET /v2/x/blobs/sha256:…" and its Range, of what was not pushed
	wrap  func(http.Handler) http.Handler
}

func newHub(t testing.TB, wrap ...func(http.Handler) http.Handler) *testHub {
	h := &testHub{wrap: func(next http.Handler) http.Handler { return next }}
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	for _, w := range wrap {
		inner = w(inner)
	}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Push") != "" {
			inner.ServeHTTP(w, r)
			return
		}
		h.mu.Lock()
		h.asked = append(h.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
		wrap := h.wrap
		h.mu.Unlock()
		wrap(inner).ServeHTTP(w, r)
	}))
	h.host = strings.TrimPrefix(h.URL, "http://")
	t.Cleanup(h.Close)
	return h
}

// behave has what is asked from now on go through wrap.
func (h *testHub) behave(wrap func(http.Handler) http.Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrap = wrap
}

// requests are those that contain a text, and forgets all.
func (h *testHub) requests(text string) (list []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.asked {
		if strings.Contains(a, text) {
			list = append(list, a)
		}
	}
	h.asked = nil
	return list
}

// put pushes something, whatever it is.
func (h *testHub) put(t testing.TB, method, path, contentType string, body []byte, wanted int) {
	req, err := http.NewRequest(method, h.URL+path, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-Push", "1")
	resp, err := h.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	require.Equal(t, wanted, resp.StatusCode, "%s %s: %s", method, path, text)
}

func (h *testHub) pushBlob(t testing.TB, repo string, blob []byte) {
	h.put(t, http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+sum(blob).String(), "application/octet-stream", blob, http.StatusCreated)
}

// push pushes an image, and gives its name.
func (h *testHub) push(t testing.TB, repo, tag string, b *built) string {
	for _, l := range b.layers {
		h.pushBlob(t, repo, l)
	}
	h.pushBlob(t, repo, b.config)
	return h.pushManifest(t, repo, tag, b.manifestType, b.manifest)
}

func (h *testHub) pushManifest(t testing.TB, repo, tag string, mediaType types.MediaType, text []byte) string {
	h.put(t, http.MethodPut, "/v2/"+repo+"/manifests/"+tag, string(mediaType), text, http.StatusCreated)
	return h.host + "/" + repo + ":" + tag
}

// pushList pushes images for several platforms.
func (h *testHub) pushList(t testing.TB, repo, tag string, images map[string]*built) (string, []byte) {
	list := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	names := []string{}
	for name := range images {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b := images[name]
		h.push(t, repo, sum(b.manifest).String(), b)
		p, err := ParsePlatform(name)
		require.NoError(t, err)
		list.Manifests = append(list.Manifests, v1.Descriptor{MediaType: b.manifestType, Size: int64(len(b.manifest)), Digest: sum(b.manifest), Platform: &p})
	}
	list.Manifests = append(list.Manifests, v1.Descriptor{
		MediaType: types.OCIManifestSchema1, Size: 2, Digest: sum([]byte("{}")), // as BuildKit's attestations
		Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}, Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
	})
	h.pushManifest(t, repo, sum([]byte("{}")).String(), types.OCIManifestSchema1, []byte("{}"))
	text, err := json.Marshal(list)
	require.NoError(t, err)
	return h.pushManifest(t, repo, tag, types.OCIImageIndex, text), text
}

// noLogin is a keychain without a key: tests do not look into the home of who runs them.
type noLogin struct{}

func (noLogin) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

// quick are options for tests: no logins, and no patience.
func quick(change ...func(*PullOptions)) PullOptions {
	o := PullOptions{Keychain: noLogin{}, firstWait: time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	return o
}

// notes is a Progress that remembers what it was told.
type notes struct {
	mu      sync.Mutex
	texts   []string
	bytes   map[v1.Hash]int64
	fetched int
	here    int
}

func (n *notes) Begin([]v1.Descriptor) {}

func (n *notes) Advance(h v1.Hash, by int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bytes == nil {
		n.bytes = map[v1.Hash]int64{}
	}
	n.bytes[h] += by
}

func (n *notes) Done(_ v1.Hash, fetched bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if fetched {
		n.fetched++
	} else {
		n.here++
	}
}

func (n *notes) Note(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.texts = append(n.texts, text)
}

func (n *notes) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.texts, "\n")
}

func newStore(t testing.TB) *Store {
	s, err := Open(filepath.Join(t.TempDir(), "husk"))
	require.NoError(t, err)
	return s
}

// files are the files of a store that are not empty, by their paths.
func (s *Store) files(t testing.TB, below string) (list []string) {
	require.NoError(t, filepath.WalkDir(s.path(below), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			list = append(list, strings.TrimPrefix(path, s.dir+"/"))
		}
		return err
	}))
	return list
}

// requireImage looks whether an image in the store is the one that was built.
func requireImage(t testing.TB, s *Store, i *Image, b *built) {
	require.Equal(t, b.id(), i.ID)
	layers, err := s.Layers(i)
	require.NoError(t, err)
	require.Len(t, layers, len(b.tars))
	size := int64(0)
	for n, l := range layers {
		r, err := l.Open()
		require.NoError(t, err)
		content, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.True(t, bytes.Equal(b.tars[n], content), "layer %d", n)
		size += int64(len(content))
	}
	require.Equal(t, size, i.Size)
}

func pull(t testing.TB, s *Store, name string, change ...func(*PullOptions)) *Image {
	i, err := s.Pull(context.Background(), name, quick(change...))
	require.NoError(t, err)
	return i
}
