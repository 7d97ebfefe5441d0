package image

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
)

func TestPull(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	name := h.push(t, "team/app", "1", b)
	i := pull(t, s, name)
	requireImage(t, s, i, b)
	require.Equal(t, []string{name}, i.Names)
	require.Equal(t, []string{"/bin/sh", "1"}, i.Config.Config.Cmd)
	require.Equal(t, sum(b.manifest), i.Digest)
	require.Equal(t, "linux/amd64", i.Platform())
	require.Empty(t, s.files(t, "partial"))

	for _, other := range []string{name, b.id().String(), b.id().Hex, b.id().Hex[:6], h.host + "/team/app@" + i.Digest.String()} {
		again, err := s.Get(other)
		require.NoError(t, err, other)
		require.Equal(t, i.ID, again.ID)
	}
	list, err := s.List()
	require.NoError(t, err)
	require.Len(t, list, 1)

	h.requests("")
	pull(t, s, name)
	require.Equal(t, []string{"GET /v2/", "HEAD /v2/team/app/manifests/1"}, h.requests(""), "what is here is not fetched again")
}

// TestPullSharesLayers: by their blobs, and by what is in them.
func TestPullSharesLayers(t *testing.T) {
	h, s := newHub(t), newStore(t)
	base := anImage(t, 1)
	pull(t, s, h.push(t, "base", "1", base))
	b := anImage(t, 1, func(b *built, c *v1.ConfigFile) {
		b.layers[1], b.types[1] = zstdOf(t, b.tars[1]), types.OCILayerZStd // packed otherwise
		more := tarOf(t, map[string]string{"more": "more"})
		b.tars, b.layers, b.types = append(b.tars, more), append(b.layers, gzipOf(t, more)), append(b.types, types.OCILayer)
		c.Config.Env = []string{"A=1"}
	})
	name := h.push(t, "app", "1", b)
	h.requests("")
	n := &notes{}
	requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Progress = n }), b)
	require.Len(t, h.requests("/blobs/"), 2, "the config and the new layer")
	require.Equal(t, 1, n.fetched)
	require.Equal(t, 3, n.here)
}

func TestTagMoves(t *testing.T) {
	h, s := newHub(t), newStore(t)
	one, two := anImage(t, 1), anImage(t, 2)
	name := h.push(t, "app", "latest", one)
	first := pull(t, s, h.host+"/app")
	h.push(t, "app", "latest", two)
	second := pull(t, s, name)
	require.NotEqual(t, first.ID, second.ID)
	i, err := s.Get(name)
	require.NoError(t, err)
	require.Equal(t, two.id(), i.ID)
	i, err = s.Get(one.id().Hex)
	require.NoError(t, err)
	require.Empty(t, i.Names, "the tag belongs to the new one")
	require.Len(t, i.Digests, 1)
}

func TestPlatforms(t *testing.T) {
	h, s := newHub(t), newStore(t)
	amd, arm := anImage(t, 1), anImage(t, 2, forPlatform("linux", "arm64", "v8"))
	amd3 := anImage(t, 3, forPlatform("linux", "amd64", "v3"))
	name, list := h.pushList(t, "app", "1", map[string]*built{"linux/amd64": amd, "linux/arm64/v8": arm, "linux/amd64/v3": amd3})
	i := pull(t, s, name)
	requireImage(t, s, i, amd)
	require.Equal(t, sum(list), i.Digest, "of the list, as Docker has it")
	for platform, b := range map[string]*built{"linux/arm64": arm, "linux/amd64/v3": amd3, "linux/amd64/v1": amd} {
		p, err := ParsePlatform(platform)
		require.NoError(t, err)
		requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Platform = p }), b)
	}
	pull(t, s, name)
	byDigest, err := s.Get(h.host + "/app@" + sum(amd.manifest).String())
	require.NoError(t, err, "by its own manifest's digest, too")
	require.Equal(t, amd.id(), byDigest.ID)

	name, _ = h.pushList(t, "others", "1", map[string]*built{"linux/arm64": arm, "windows/amd64": anImage(t, 4, forPlatform("windows", "amd64", ""))})
	_, err = s.Pull(context.Background(), name, quick())
	require.ErrorIs(t, err, ErrPlatform)
	require.ErrorContains(t, err, "none for linux/amd64, only for linux/arm64, windows/amd64")

	_, err = s.Pull(context.Background(), h.push(t, "single", "1", arm), quick())
	require.ErrorIs(t, err, ErrPlatform, "one without a list says it in its config")
	require.ErrorContains(t, err, "linux/arm64")
}

func TestNestedLists(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	_, text := h.pushList(t, "app", "0", map[string]*built{"linux/amd64": b})
	for depth := 1; depth <= maxNesting; depth++ {
		list := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{MediaType: types.OCIImageIndex, Size: int64(len(text)), Digest: sum(text)}}}
		var err error
		text, err = json.Marshal(list)
		require.NoError(t, err)
		name := h.pushManifest(t, "app", string(rune('0'+depth)), types.OCIImageIndex, text)
		i, err := s.Pull(context.Background(), name, quick())
		if depth+2 <= maxNesting {
			require.NoError(t, err)
			requireImage(t, s, i, b)
			continue
		}
		require.ErrorIs(t, err, ErrFormat)
	}
}

// TestWhatIsNoImage: each kind of it has an error that names it, and leaves nothing.
func TestWhatIsNoImage(t *testing.T) {
	h := newHub(t)
	good := anImage(t, 1)
	manifest := func(change func(m *v1.Manifest)) []byte {
		var m v1.Manifest
		require.NoError(t, json.Unmarshal(good.manifest, &m))
		change(&m)
		text, err := json.Marshal(m)
		require.NoError(t, err)
		return text
	}
	h.push(t, "x", "good", good)
	config := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`)
	h.pushBlob(t, "x", config)
	for name, c := range map[string]struct {
		mediaType types.MediaType
		text      []byte
		is        error
		says      string
	}{
		"artifact": {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }), ErrFormat, "artifact of type \"application/vnd.cncf.helm.config.v1+json\""},
		"typed":    {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.ArtifactType = "text/sbom" }), ErrFormat, "text/sbom"},
		"schema1":  {types.DockerManifestSchema1Signed, []byte(`{"schemaVersion":1,"fsLayers":[]}`), ErrFormat, "schema 1"},
		"unknown":  {"text/html", []byte(`{"a":1}`), ErrFormat, "text/html"},
		"notjson":  {types.OCIManifestSchema1, []byte(`<html>`), ErrFormat, "invalid character"},
		"both":     {types.OCIManifestSchema1, []byte(`{"schemaVersion":2,"config":{},"manifests":[]}`), ErrFormat, "at once"},
		"layer":    {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.Layers[0].MediaType = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" }), ErrFormat, "+encrypted"},
		"count":    {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.Layers = m.Layers[:2] }), ErrFormat, "2 layers, but 3 diff_ids"},
		"config":   {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.Config.Size = maxConfig + 1 }), ErrFormat, "more than the"},
		"negative": {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.Layers[0].Size = -1 }), ErrFormat, "-1 bytes"},
		"short":    {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.Layers[0].Size-- }), ErrDigest, "its manifest says"},
		"long":     {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.Layers[0].Size++ }), ErrDigest, "its manifest says"},
		"huge":     {types.OCIManifestSchema1, manifest(func(m *v1.Manifest) { m.Layers[0].Size = 1 << 60 }), nil, "MiB are needed"},
		"empty":    {types.OCIImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`), ErrPlatform, "without an image"},
		"nodigest": {types.OCIManifestSchema1, []byte(`{"schemaVersion":2,"config":{"mediaType":"` + string(types.OCIConfigJSON) + `"},"layers":[]}`), ErrFormat, "without a digest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			_, err := s.Pull(context.Background(), h.pushManifest(t, "x", name, c.mediaType, c.text), quick())
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, h.host+"/x:"+name)
			list, err := s.List()
			require.NoError(t, err)
			require.Empty(t, list)
			require.Empty(t, s.files(t, "partial"))
		})
	}
	_, err := newStore(t).Pull(context.Background(), h.host+"/x:nosuch", quick())
	require.ErrorIs(t, err, ErrNotFound)
	_, err = newStore(t).Pull(context.Background(), h.host+"/x@"+sum([]byte("?")).String(), quick())
	require.ErrorIs(t, err, ErrNotFound)
}

// TestHostileRegistry: answers without end are cut off.
func TestHostileRegistry(t *testing.T) {
	h := newHub(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	endless := func(what string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.URL.Path, what) || r.Method != http.MethodGet {
					next.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
				for {
					if _, err := w.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			})
		}
	}
	for what, is := range map[string]error{
		"/manifests/":                         ErrFormat,
		"/blobs/" + b.id().String():           ErrFormat,
		"/blobs/" + sum(b.layers[1]).String(): ErrDigest,
	} {
		h.behave(endless(what))
		s := newStore(t)
		_, err := s.Pull(context.Background(), name, quick())
		require.ErrorIs(t, err, is, what)
		require.NotContains(t, s.files(t, "partial"), "partial/sha256-"+sum(b.layers[1]).Hex)
	}
}

// swap answers a path with other bytes.
func swap(path string, with []byte) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, path) && r.Method == http.MethodGet {
				_, _ = w.Write(with)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// TestWrongDigests: of a manifest, a config, a layer, and of the tar in a layer.
func TestWrongDigests(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	other := append([]byte{}, b.layers[1]...)
	other[len(other)/2] ^= 1
	config := append([]byte{}, b.config...)
	config[5] ^= 1
	list, _ := h.pushList(t, "x", "list", map[string]*built{"linux/amd64": b})
	for _, c := range []struct {
		name, path string
		with       []byte
	}{
		{name, "/blobs/" + sum(b.layers[1]).String(), other},
		{name, "/blobs/" + b.id().String(), config},
		{list, "/manifests/" + sum(b.manifest).String(), b.config},
		{h.host + "/x@" + sum(b.manifest).String(), "/manifests/" + sum(b.manifest).String(), b.config},
	} {
		h.behave(swap(c.path, c.with))
		_, err := s.Pull(context.Background(), c.name, quick())
		require.ErrorIs(t, err, ErrDigest, c.path)
		require.NotContains(t, s.files(t, "partial"), "partial/sha256-"+sum(b.layers[1]).Hex)
	}
	h.behave(func(next http.Handler) http.Handler { return next })
	requireImage(t, s, pull(t, s, name), b)

	lies := anImage(t, 2, func(b *built, c *v1.ConfigFile) {
		c.RootFS.DiffIDs = []v1.Hash{sum(b.tars[0]), sum(b.tars[1]), sum(b.tars[1])}
	})
	_, err := s.Pull(context.Background(), h.push(t, "x", "2", lies), quick())
	require.ErrorIs(t, err, ErrDigest)
	require.ErrorContains(t, err, "the tar in it must be")
	broken := anImage(t, 3, func(b *built, _ *v1.ConfigFile) { b.layers[1] = b.layers[1][:len(b.layers[1])-9] })
	_, err = s.Pull(context.Background(), h.push(t, "x", "3", broken), quick())
	require.ErrorIs(t, err, ErrFormat)
	require.ErrorContains(t, err, "cannot be unpacked")
}
