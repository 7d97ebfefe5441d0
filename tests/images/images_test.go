package images

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func all(t *testing.T) []Image {
	t.Helper()
	list, err := All(Busybox{program: "a program", applets: []string{"sh", "busybox", "ls"}})
	require.NoError(t, err)
	return list
}

// valid reads an image whole: each layer is what the configuration says.
func valid(t *testing.T, image v1.Image) {
	t.Helper()
	config, err := image.ConfigFile()
	require.NoError(t, err)
	layers, err := image.Layers()
	require.NoError(t, err)
	require.Len(t, config.RootFS.DiffIDs, len(layers))
	require.Len(t, config.History, len(layers))
	for i, l := range layers {
		r, err := l.Uncompressed()
		require.NoError(t, err)
		h, _, err := v1.SHA256(r)
		require.NoError(t, err)
		require.Equal(t, config.RootFS.DiffIDs[i], h)
	}
}

func TestImagesAreValidAndAlwaysTheSame(t *testing.T) {
	again := all(t)
	for i, image := range all(t) {
		valid(t, image.Image)
		one, err := image.Image.Digest()
		require.NoError(t, err)
		other, err := again[i].Image.Digest()
		require.NoError(t, err)
		require.Equal(t, one, other, image.Name)
	}
}

func TestArchiveAndLayout(t *testing.T) {
	dir := t.TempDir()
	list := all(t)
	archive := filepath.Join(dir, "small.tar")
	for range 2 { // over what is there
		require.NoError(t, WriteArchive(archive, list))
		require.NoError(t, WriteLayout(dir+"/oci", list[:2]))
	}
	tag, err := name.NewTag("odd:latest")
	require.NoError(t, err)
	odd, err := tarball.ImageFromPath(archive, &tag)
	require.NoError(t, err)
	valid(t, odd)

	index, err := layout.ImageIndexFromPath(dir + "/oci")
	require.NoError(t, err)
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 4)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2)
}

// flat is an image's files as the library flattens them: a second opinion.
func flat(t *testing.T, image v1.Image) map[string]*tar.Header {
	t.Helper()
	files := map[string]*tar.Header{}
	r := mutate.Extract(image)
	defer r.Close()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		files[strings.TrimSuffix(h.Name, "/")] = h
	}
}

func find(t *testing.T, name string) v1.Image {
	t.Helper()
	for _, i := range all(t) {
		if i.Name == name {
			return i.Image
		}
	}
	require.Fail(t, "no such image", name)
	return nil
}

func TestOddLayers(t *testing.T) {
	files := flat(t, find(t, "odd"))
	for _, name := range []string{"odd/gone", "odd/gone-dir/file", "odd/dir-to-file", "odd/dir-to-file/file"} {
		require.NotContains(t, files, name)
	}
	for _, name := range []string{"odd/kept", "odd/opaque/above", "odd/changed/stays", "odd/file-to-dir/file", "odd/gone-dir/new", "odd/" + LongName, "odd/" + LongPath, "odd/" + RawName} {
		require.Contains(t, files, name)
	}
	require.EqualValues(t, SparseSize, files["odd/sparse"].Size)
	require.Equal(t, 4294967294, files["odd/many-owners"].Uid)
	require.Equal(t, Capability, files["odd/capable"].PAXRecords["SCHILY.xattr.security.capability"])
	require.EqualValues(t, 1048575, files["odd/disk"].Devminor)
}

// TestSparse: what archive/tar reads is what was meant.
func TestSparse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blocks := rapid.SliceOfNDistinct(rapid.Int64Range(0, 40), 0, 8, rapid.ID[int64]).Draw(t, "blocks")
		data := rapid.StringMatching(`[a-z]{1,600}`).Draw(t, "data")
		var offsets []int64
		want := make([]byte, 41*1024)
		for i := range int64(41) { // in order
			for _, b := range blocks {
				if b == i {
					offsets = append(offsets, i*1024)
					copy(want[i*1024:], data)
				}
			}
		}
		tree := newTree()
		tree.file("before", 0o644, "before")
		tree.sparse("folder/sparse", int64(len(want)), offsets, data)
		tree.file("after", 0o644, "after")
		require.NoError(t, tree.err)
		require.NoError(t, tree.tar.Close())
		archive := tar.NewReader(&tree.buf)
		var names []string
		for {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			names = append(names, h.Name)
			got, err := io.ReadAll(archive)
			require.NoError(t, err)
			if h.Name == "folder/sparse" {
				require.Equal(t, want, got)
			}
		}
		require.Equal(t, []string{"before", "folder/sparse", "after"}, names)
	})
}

func TestBusyboxMustBeStatic(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	_, err := FindBusybox()
	require.ErrorContains(t, err, "tests/install images")
	require.NoError(t, os.WriteFile(dir+"/busybox", []byte("#!/bin/sh\n"), 0o755))
	_, err = FindBusybox()
	require.ErrorContains(t, err, "tests/install images")
}
