package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A dockerArchive is what docker save writes, as an origin. Its layers have paths, and by
// those we know them; a digest they get from us.
type dockerArchive struct {
	tree
	images []dockerImage
	paths  map[v1.Hash]string
}

// A dockerImage is an entry of an archive's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string // bottom first
}

// openDockerArchive reads the archive's manifest.json. The error is fs.ErrNotExist if
// there is none.
func openDockerArchive(t tree) (*dockerArchive, error) {
	text, err := readFile(t, "manifest.json", maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no docker archive: %w", ErrFormat, err)
	}
	if err != nil {
		return nil, err
	}
	images, err := parseDockerManifest(text)
	if err != nil {
		return nil, err
	}
	return &dockerArchive{tree: t, images: images, paths: map[v1.Hash]string{}}, nil
}

func parseDockerManifest(text []byte) ([]dockerImage, error) {
	var images []dockerImage
	if err := json.Unmarshal(text, &images); err != nil {
		return nil, fmt.Errorf("manifest.json: %w: %w", ErrFormat, err)
	}
	for _, i := range images {
		if i.Config == "" {
			return nil, fmt.Errorf("manifest.json: %w: an image without a config", ErrFormat)
		}
	}
	return images, nil
}

// candidates are the images of the archive: all, or the one with a tag, or the one with a
// number ("@0").
func (a *dockerArchive) candidates(ctx context.Context, tag string, o PullOptions) ([]*candidate, error) {
	var list []*candidate
	var tags []string
	for n, i := range a.images {
		names := familiarNames(i.RepoTags, o.Progress)
		tags = append(tags, names...)
		if tag != "" && tag != "@"+strconv.Itoa(n) {
			ref, err := ParseReference(tag)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(names, ref.Familiar()) {
				continue
			}
			names = []string{ref.Familiar()}
		}
		c, err := a.candidate(ctx, i, o)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", strings.Join(append(names, i.Config)[:1], ""), err)
		}
		c.names = names
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, notThere(tag, tags)
	}
	return list, nil
}

// familiarNames are an archive's tags, but for those that are no names.
func familiarNames(tags []string, p Progress) (names []string) {
	for _, t := range tags {
		ref, err := ParseReference(t)
		if err != nil || ref.Digest != "" {
			p.Note(fmt.Sprintf("the archive calls an image %q, which is no name; it is left out", t))
			continue
		}
		names = append(names, ref.Familiar())
	}
	return names
}

func (a *dockerArchive) candidate(ctx context.Context, i dockerImage, o PullOptions) (*candidate, error) {
	config, err := readFile(a.tree, i.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	id, _, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return nil, err
	}
	c := &candidate{config: config, id: id, layers: make([]v1.Descriptor, len(i.Layers))}
	if err := c.check(o); err != nil {
		return nil, err
	}
	for n, name := range i.Layers {
		d, err := a.describe(ctx, name, c.parsed.RootFS.DiffIDs[n])
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		c.layers[n] = d
		a.paths[d.Digest] = name
	}
	return c, nil
}

// describe finds out what a layer is. What is not compressed must be the tar that the
// config says; of what is, the digest must be made.
func (a *dockerArchive) describe(ctx context.Context, name string, diffID v1.Hash) (v1.Descriptor, error) {
	f, size, err := a.open(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	head := make([]byte, 6)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return v1.Descriptor{}, err
	}
	d := v1.Descriptor{Digest: diffID, Size: size, MediaType: types.OCIUncompressedLayer}
	kind := detect(head[:n])
	if kind == plain {
		return d, nil
	}
	d.MediaType = types.OCILayer
	if kind == zstandard {
		d.MediaType = types.OCILayerZStd
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return v1.Descriptor{}, err
	}
	d.Digest, _, err = v1.SHA256(reader{ctx, f})
	return d, err
}

func (a *dockerArchive) manifest(context.Context, string) ([]byte, types.MediaType, error) {
	return nil, "", fmt.Errorf("%w: a docker archive has no manifests", ErrFormat)
}

func (a *dockerArchive) blob(_ context.Context, d v1.Descriptor, from int64) (io.ReadCloser, int64, error) {
	return openAt(a.tree, a.paths[d.Digest], d, from)
}

func (a *dockerArchive) distrust(v1.Descriptor, error) bool { return false }
