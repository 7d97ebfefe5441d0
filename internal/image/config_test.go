package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
)

func TestParsePlatform(t *testing.T) {
	for s, want := range map[string]v1.Platform{
		"linux/amd64": {OS: "linux", Architecture: "amd64"}, "arm64": {OS: "linux", Architecture: "arm64"},
		"Linux/x86_64": {OS: "linux", Architecture: "amd64"}, "linux/arm/v7": {OS: "linux", Architecture: "arm", Variant: "v7"},
		"aarch64": {OS: "linux", Architecture: "arm64"},
	} {
		p, err := ParsePlatform(s)
		require.NoError(t, err)
		require.Equal(t, want, p)
	}
	for _, s := range []string{"", "/", "linux/", "a/b/c/d", "linux//v7"} {
		_, err := ParsePlatform(s)
		require.ErrorContains(t, err, "linux/amd64", s)
	}
}

func TestChoose(t *testing.T) {
	d := func(name, platform string) v1.Descriptor {
		d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: sum([]byte(name))}
		if platform != "" {
			p, err := ParsePlatform(platform)
			require.NoError(t, err)
			d.Platform = &p
		}
		return d
	}
	amd := DefaultPlatform()
	v3 := v1.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}
	for _, c := range []struct {
		list []v1.Descriptor
		want v1.Platform
		got  string
		err  string
	}{
		{[]v1.Descriptor{d("3", "linux/amd64/v3"), d("2", "linux/amd64/v2")}, amd, "2", ""},
		{[]v1.Descriptor{d("3", "linux/amd64/v3"), d("1", "linux/amd64")}, amd, "1", ""},
		{[]v1.Descriptor{d("3", "linux/amd64/v3"), d("1", "linux/amd64")}, v3, "3", ""},
		{[]v1.Descriptor{d("1", "linux/amd64"), d("1b", "linux/amd64")}, amd, "1", ""},
		{[]v1.Descriptor{d("s", "")}, amd, "s", ""},
		{[]v1.Descriptor{d("s", ""), d("t", "")}, amd, "", "name one by its digest"},
		{[]v1.Descriptor{d("s", ""), d("1", "linux/amd64")}, amd, "1", ""},
		{[]v1.Descriptor{d("a", "linux/arm/v6"), d("b", "linux/arm/v6")}, amd, "", "only for linux/arm/v6;"},
		{nil, amd, "", "without an image"},
	} {
		got, err := choose(&v1.IndexManifest{Manifests: c.list}, c.want)
		if c.err != "" {
			require.ErrorIs(t, err, ErrPlatform)
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, sum([]byte(c.got)), got.Digest)
	}
}

// TestDocumentsOfOldRegistries: what a header says, and what it does not.
func TestDocumentsOfOldRegistries(t *testing.T) {
	b := anImage(t, 1, func(b *built, _ *v1.ConfigFile) { b.manifestType = "" }) // the OCI's may leave it out
	for _, mediaType := range []types.MediaType{"", types.OCIManifestSchema1, "text/plain", "application/json"} {
		doc, err := parseDocument(b.manifest, mediaType)
		require.NoError(t, err)
		require.NotNil(t, doc.manifest, mediaType)
		doc, err = parseDocument([]byte(`{"schemaVersion":2,"manifests":[]}`), mediaType)
		if mediaType == types.OCIManifestSchema1 {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.NotNil(t, doc.list, mediaType)
	}
}

func FuzzDocument(f *testing.F) {
	b := anImage(f, 1)
	f.Add(b.manifest, string(types.OCIManifestSchema1))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"`+string(types.OCIManifestSchema1)+`","size":2,"digest":"`+sum(nil).String()+`","platform":{"os":"linux","architecture":"amd64"}}]}`), "")
	f.Add([]byte(`{"schemaVersion":1}`), "")
	f.Fuzz(func(t *testing.T, text []byte, mediaType string) {
		doc, err := parseDocument(text, types.MediaType(mediaType))
		if err != nil {
			return
		}
		require.True(t, (doc.manifest == nil) != (doc.list == nil))
		if doc.list != nil {
			d, err := choose(doc.list, DefaultPlatform())
			require.True(t, err != nil || d.Digest.Hex != "")
			return
		}
		for _, d := range append([]v1.Descriptor{doc.manifest.Config}, doc.manifest.Layers...) {
			require.NotEmpty(t, d.Digest.Hex)
			require.GreaterOrEqual(t, d.Size, int64(0))
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add(anImage(f, 1).config)
	f.Add([]byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":[null]}}`))
	f.Add([]byte(`{"config":{"Healthcheck":{"Interval":1},"ExposedPorts":{"80/tcp":{}}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig(text)
		if err != nil {
			return
		}
		for _, h := range c.RootFS.DiffIDs {
			_, err := hexBytes(h)
			require.NoError(t, err)
			require.NotEmpty(t, h.Hex)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"version":1,"images":[{"id":"`+sum(nil).String()+`","names":["a:1"],"digests":["a@`+sum(nil).String()+`"],"layers":[{"digest":"`+sum(nil).String()+`","size":1,"diff_id":"`+sum(nil).String()+`"}]}]}`), "a:1")
	f.Add([]byte(`{"version":1,"images":[null]}`), "a")
	f.Add([]byte(`{"version":2}`), "e3b0")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		ix, err := parseIndex(text)
		if err != nil {
			return
		}
		r, err := ix.find(name)
		if err != nil {
			return
		}
		require.NotEmpty(t, r.image().String())
		_, _ = ix.remove(r, name, true)
	})
}

// FuzzArchive: whatever is in a tar, the store is as it was, or has an image that is whole.
func FuzzArchive(f *testing.F) {
	b := anImage(f, 1, func(b *built, _ *v1.ConfigFile) {
		b.tars = [][]byte{tarOf(f, map[string]string{"x": "y"})}
		b.layers, b.types = [][]byte{b.tars[0]}, b.types[:1]
	})
	f.Add(dockerTar(f, b, "a:1"))
	dir := aLayout(f, map[string]*built{"a:1": b})
	var entries []entry
	require.NoError(f, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		entries = append(entries, entry{name: strings.TrimPrefix(path, dir+"/"), text: text})
		return err
	}))
	f.Add(writeTar(f, entries...))
	f.Add(gzipOf(f, dockerTar(f, b, "a:1")))
	f.Fuzz(func(t *testing.T, p []byte) {
		s := newStore(t)
		list, err := s.Load(context.Background(), fileOf(t, p), "", quick())
		all, listed := s.List()
		require.NoError(t, listed)
		if err != nil {
			return
		}
		require.NotEmpty(t, all)
		for _, i := range list {
			layers, err := s.Layers(i)
			require.NoError(t, err)
			for _, l := range layers {
				require.NoError(t, l.verify(context.Background()))
			}
		}
	})
}

// TestUnpack: streams that are cut or false are errors, and no stream asks for more memory
// than husk gives.
func TestUnpack(t *testing.T) {
	text := []byte(strings.Repeat("husk", 10_000))
	for kind, p := range map[compression][]byte{plain: text, gzipped: gzipOf(t, text), zstandard: zstdOf(t, text)} {
		r, got, err := unpack(bytes.NewReader(p))
		require.NoError(t, err)
		require.Equal(t, kind, got)
		all, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, text, all)
		require.NoError(t, r.Close())
	}
	for _, p := range [][]byte{
		gzipOf(t, text)[:40], zstdOf(t, text)[:20],
		{0x1f, 0x8b},
		{0x28, 0xb5, 0x2f, 0xfd},
		// A window of 2 GiB (RFC 8878 §3.1.1.1.2).
		{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0, 0, 0},
	} {
		r, _, err := unpack(bytes.NewReader(p))
		if err == nil {
			_, err = io.ReadAll(r)
			_ = r.Close()
		}
		require.Error(t, err)
	}
	r, kind, err := unpack(bytes.NewReader(append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, zstdOf(t, text)...)))
	require.NoError(t, err)
	require.Equal(t, zstandard, kind)
	all, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, text, all)
	require.NoError(t, r.Close())
}

func TestDamagedIndex(t *testing.T) {
	h, s := newHub(t), newStore(t)
	name := h.push(t, "x", "1", anImage(t, 1))
	i := pull(t, s, name)
	damage(t, s.blobPath(i.ID))
	_, err := s.Get(name)
	require.ErrorContains(t, err, "damaged")
	list, err := s.List()
	require.NoError(t, err)
	require.Len(t, list, 1, "it is listed, so that it can be removed")
	remove(t, s, name, false)

	for text, says := range map[string]string{"{": "without this file", `{"version":99}`: "another husk's", `{"version":1,"images":[null]}`: "null"} {
		require.NoError(t, os.WriteFile(s.path("index.json"), []byte(text), 0o600))
		_, err := s.List()
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, "index.json")
		_, err = s.Pull(context.Background(), name, quick())
		require.ErrorContains(t, err, says)
	}
	var ix index
	require.NoError(t, json.Unmarshal([]byte(`{"version":1,"images":[{"id":"`+sum([]byte("1")).String()+`"},{"id":"`+sum([]byte("2")).String()+`"}]}`), &ix))
	ix.Images[1].ID.Hex = ix.Images[0].ID.Hex[:63] + "z"
	_, err = ix.find(ix.Images[0].ID.Hex[:12])
	require.ErrorIs(t, err, ErrAmbiguous)
}
