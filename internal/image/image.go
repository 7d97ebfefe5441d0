package image

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An Image is one of the store's.
type Image struct {
	// ID is the digest of its config, as Docker shows it.
	ID v1.Hash
	// Digest is what the registry it came from calls it: that of its manifest, or of the
	// list of manifests with it. The zero Hash if it came from no registry.
	Digest v1.Hash
	// Names are those it has here: "debian:12", "localhost:5000/x:latest".
	Names []string
	// Digests are names with digests, the newest first: "debian@sha256:…".
	Digests []string
	Config  v1.ConfigFile
	// Size is that of its layers unpacked, in bytes.
	Size  int64
	Added time.Time // to the store

	record *record
}

// Platform is what the image runs on: "linux/amd64".
func (i *Image) Platform() string { return platformOf(&i.Config).String() }

// A Layer is a change to a file system, as a tar.
type Layer struct {
	Digest    v1.Hash // of the blob: the tar as it came, compressed or not
	Size      int64   // of the blob, in bytes
	MediaType types.MediaType
	DiffID    v1.Hash // of the tar
	TarSize   int64   // of the tar, in bytes

	path string
	read *verdict // whether it has been read to its end, and was right
}

// Get looks an image up by a name, a name with a digest, an ID, or the beginning of one.
// The error is ErrNotFound or ErrAmbiguous, or tells what is wrong with the store.
func (s *Store) Get(name string) (*Image, error) {
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	r, err := ix.find(name)
	if err != nil {
		return nil, err
	}
	return s.image(r)
}

// List is all images, the newest first.
func (s *Store) List() ([]*Image, error) {
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	list := make([]*Image, 0, len(ix.Images))
	for _, r := range ix.Images {
		i, err := s.image(r)
		if err != nil { // a damaged one is listed too, or nobody could remove it
			i = r.image()
		}
		list = append(list, i)
	}
	slices.SortStableFunc(list, func(a, b *Image) int { return b.Config.Created.Compare(a.Config.Created.Time) })
	return list, nil
}

// image reads an image's config.
func (s *Store) image(r *record) (*Image, error) {
	i := r.image()
	text, err := os.ReadFile(s.blobPath(r.ID))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("image %s is damaged: its config is missing; pull it again", i)
	case err != nil:
		return nil, fmt.Errorf("image %s: %w", i, err)
	}
	if h, _, err := v1.SHA256(bytes.NewReader(text)); r.ID.Algorithm == h.Algorithm && (err != nil || h != r.ID) {
		return nil, fmt.Errorf("image %s is damaged: its config is %w; remove the image and pull it again", i, ErrDigest)
	}
	c, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i, err)
	}
	i.Config = *c
	return i, nil
}

// image is what a record says of an image.
func (r *record) image() *Image {
	i := &Image{
		ID: r.ID, Names: slices.Clone(r.Names), Digests: slices.Clone(r.Digests),
		Size: r.size(), Added: r.Added, record: r,
	}
	if len(r.Digests) > 0 {
		_, d, _ := strings.Cut(r.Digests[0], "@")
		i.Digest, _ = v1.NewHash(d)
	}
	return i
}

// String is what to call the image when talking to people.
func (i *Image) String() string {
	switch {
	case len(i.Names) > 0:
		return i.Names[0]
	case len(i.Digests) > 0:
		return i.Digests[0]
	}
	return shortID(i.ID)
}

// shortID is an ID as people see it.
func shortID(h v1.Hash) string { return h.Hex[:min(12, len(h.Hex))] }

// Layers are the image's layers, bottom first. They are there as long as the image is:
// who wants to be sure reads them in Root.
func (s *Store) Layers(i *Image) ([]Layer, error) {
	if i.record == nil {
		return nil, fmt.Errorf("image %s: %w", i, ErrNotFound)
	}
	layers := make([]Layer, 0, len(i.record.Layers))
	for _, l := range i.record.Layers {
		if !s.has(l.Digest, l.Size) {
			return nil, fmt.Errorf("image %s is damaged: layer %s is missing; pull it again", i, shortID(l.Digest))
		}
		layers = append(layers, Layer{
			Digest: l.Digest, Size: l.Size, MediaType: l.MediaType, DiffID: l.DiffID, TarSize: l.TarSize,
			path: s.blobPath(l.Digest), read: &verdict{},
		})
	}
	return layers, nil
}

// find looks an image up: names go before IDs, as with Docker.
func (ix *index) find(name string) (*record, error) {
	if ref, err := ParseReference(name); err == nil {
		for _, r := range ix.Images {
			if r.called(ref) {
				return r, nil
			}
		}
	} else if !isIDPrefix(name) {
		return nil, err
	}
	if !isIDPrefix(name) {
		return nil, fmt.Errorf("%s: %w here; husk images lists those there are", name, ErrNotFound)
	}
	prefix := strings.TrimPrefix(name, "sha256:")
	var found *record
	for _, r := range ix.Images {
		if !strings.HasPrefix(r.ID.Hex, prefix) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s: %w: %s and %s", name, ErrAmbiguous, shortID(found.ID), shortID(r.ID))
		}
		found = r
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w here; husk images lists those there are", name, ErrNotFound)
	}
	return found, nil
}

// called tells whether the image has this name. With a digest, it may be that of the
// image's own manifest, too, where the image came from a list.
func (r *record) called(ref Reference) bool {
	if ref.Digest == "" {
		return slices.Contains(r.Names, ref.Familiar())
	}
	return slices.Contains(r.Digests, ref.Familiar()) || r.Manifest != nil && r.Manifest.String() == ref.Digest && slices.ContainsFunc(r.Digests, func(d string) bool {
		repo, _, _ := strings.Cut(d, "@")
		return repo == ref.familiarRepository()
	})
}

// isIDPrefix tells whether name may be the beginning of an ID.
func isIDPrefix(name string) bool {
	rest := strings.TrimPrefix(name, "sha256:")
	if rest == "" || len(rest) > 64 {
		return false
	}
	_, err := hex.DecodeString(rest + strings.Repeat("0", len(rest)%2))
	return err == nil && rest == strings.ToLower(rest)
}
