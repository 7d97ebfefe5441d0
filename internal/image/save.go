package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A Format is one of files with images.
type Format string

// The formats that Save writes.
const (
	DockerArchive Format = "docker-archive" // as docker save; docker load takes it
	OCIArchive    Format = "oci-archive"    // a tar of an OCI layout
	OCIFolder     Format = "oci-dir"        // an OCI layout
)

// Save writes images, as a tar to w.
func (s *Store) Save(ctx context.Context, w io.Writer, names []string, format Format) error {
	t := &tarSink{tar.NewWriter(w)}
	if err := s.save(ctx, t, names, format); err != nil {
		return err
	}
	return t.w.Close()
}

// SaveFolder writes images as an OCI layout into a folder, which must be empty or not there.
// If it fails, what it has written is removed.
func (s *Store) SaveFolder(ctx context.Context, dir string, names []string) error {
	err := os.Mkdir(dir, 0o777)
	made := err == nil
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("%s: not empty; name a new folder", dir)
	}
	if err := s.save(ctx, folderSink(dir), names, OCIFolder); err != nil {
		for _, name := range []string{"blobs", "index.json", "oci-layout"} {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
		}
		if made {
			err = errors.Join(err, os.Remove(dir))
		}
		return err
	}
	return nil
}

// A sink takes an archive's files. Each must be as long as it was said to be.
type sink interface {
	file(name string, size int64, write func(io.Writer) error) error
}

// save writes images while nobody removes them.
func (s *Store) save(ctx context.Context, to sink, names []string, format Format) error {
	adding, err := s.add(ctx)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer s.release(adding, nil)
	list, err := s.saved(names)
	if err != nil {
		return err
	}
	w := &writer{store: s, ctx: ctx, sink: to, written: map[string]bool{}}
	if format == DockerArchive {
		return w.dockerArchive(list)
	}
	return w.layout(list)
}

// A savedImage is one to write, with the names to write.
type savedImage struct {
	*Image
	names  []Reference
	layers []Layer
}

// saved are the images of those names, each once.
func (s *Store) saved(names []string) ([]*savedImage, error) {
	var list []*savedImage
	at := map[v1.Hash]*savedImage{}
	for _, name := range names {
		i, err := s.Get(name)
		if err != nil {
			return nil, err
		}
		one := at[i.ID]
		if one == nil {
			one = &savedImage{Image: i}
			if one.layers, err = s.Layers(i); err != nil {
				return nil, err
			}
			at[i.ID] = one
			list = append(list, one)
		}
		if ref, err := ParseReference(name); err == nil && ref.Digest == "" && i.record.called(ref) {
			one.names = append(one.names, ref)
		}
	}
	return list, nil
}

// A writer writes images into a sink, and each file once.
type writer struct {
	store   *Store
	ctx     context.Context
	sink    sink
	written map[string]bool
}

// file writes a file, unless it is there.
func (w *writer) file(name string, size int64, write func(io.Writer) error) error {
	if w.written[name] {
		return nil
	}
	w.written[name] = true
	return w.sink.file(name, size, write)
}

func (w *writer) text(name string, text []byte) error {
	return w.file(name, int64(len(text)), func(to io.Writer) error {
		_, err := to.Write(text)
		return err
	})
}

func (w *writer) json(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.text(name, text)
}

// stream copies what open gives.
func (w *writer) stream(name string, size int64, open func() (io.ReadCloser, error)) error {
	return w.file(name, size, func(to io.Writer) error {
		r, err := open()
		if err != nil {
			return err
		}
		_, err = io.Copy(to, reader{w.ctx, r})
		return errors.Join(err, r.Close())
	})
}

// dockerArchive writes what docker load takes: layers unpacked, each under its DiffID.
func (w *writer) dockerArchive(list []*savedImage) error {
	var entries []dockerImage
	for _, i := range list {
		config, err := os.ReadFile(w.store.blobPath(i.ID))
		if err != nil {
			return err
		}
		e := dockerImage{Config: i.ID.Hex + ".json"}
		if err := w.text(e.Config, config); err != nil {
			return err
		}
		for _, l := range i.layers {
			name := l.DiffID.Hex + "/layer.tar"
			if err := w.stream(name, l.TarSize, l.Open); err != nil {
				return err
			}
			e.Layers = append(e.Layers, name)
		}
		for _, ref := range i.names {
			e.RepoTags = append(e.RepoTags, ref.Familiar())
		}
		entries = append(entries, e)
	}
	return w.json("manifest.json", entries)
}

// layout writes an OCI layout: blobs as they came.
func (w *writer) layout(list []*savedImage) error {
	if err := w.text("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, i := range list {
		d, err := w.layoutImage(i)
		if err != nil {
			return fmt.Errorf("image %s: %w", i, err)
		}
		if len(i.names) == 0 {
			index.Manifests = append(index.Manifests, d)
		}
		for _, ref := range i.names {
			d.Annotations = map[string]string{containerName: ref.String(), refName: ref.Tag}
			index.Manifests = append(index.Manifests, d)
		}
	}
	return w.json("index.json", index)
}

// layoutImage writes the blobs of an image, and tells what its manifest is.
func (w *writer) layoutImage(i *savedImage) (v1.Descriptor, error) {
	config, err := os.ReadFile(w.store.blobPath(i.ID))
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := w.text(blobName(i.ID), config); err != nil {
		return v1.Descriptor{}, err
	}
	for _, l := range i.layers {
		if err := w.stream(blobName(l.Digest), l.Size, l.openBlob); err != nil {
			return v1.Descriptor{}, err
		}
	}
	text, mediaType, err := w.store.manifestOf(i, int64(len(config)))
	if err != nil {
		return v1.Descriptor{}, err
	}
	sum, _, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return v1.Descriptor{}, err
	}
	platform := platformOf(&i.Config)
	d := v1.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(text)), Platform: &platform}
	return d, w.text(blobName(sum), text)
}

// manifestOf is the image's own manifest, if its layers are those that are here, or a new
// one.
func (s *Store) manifestOf(i *savedImage, configSize int64) ([]byte, types.MediaType, error) {
	if h := i.record.Manifest; h != nil {
		text, err := os.ReadFile(s.blobPath(*h))
		if err != nil {
			return nil, "", err
		}
		doc, err := parseDocument(text, "")
		if err == nil && doc.manifest != nil && sameBlobs(doc.manifest.Layers, i.layers) {
			mediaType := doc.manifest.MediaType
			if mediaType == "" {
				mediaType = types.OCIManifestSchema1
			}
			return text, mediaType, nil
		}
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: i.ID, Size: configSize},
		Layers: []v1.Descriptor{},
	}
	for _, l := range i.layers {
		mediaType, err := l.ociType()
		if err != nil {
			return nil, "", err
		}
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: mediaType, Digest: l.Digest, Size: l.Size})
	}
	text, err := json.Marshal(m)
	return text, m.MediaType, err
}

// sameBlobs tells whether layers are the blobs that a manifest names.
func sameBlobs(manifest []v1.Descriptor, layers []Layer) bool {
	if len(manifest) != len(layers) {
		return false
	}
	for n, l := range layers {
		if manifest[n].Digest != l.Digest {
			return false
		}
	}
	return true
}

// A tarSink writes a tar that is the same whenever it is written.
type tarSink struct{ w *tar.Writer }

func (t *tarSink) file(name string, size int64, write func(io.Writer) error) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	return write(t.w)
}

// A folderSink writes into a folder.
type folderSink string

func (dir folderSink) file(name string, _ int64, write func(io.Writer) error) error {
	path := filepath.Join(string(dir), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
