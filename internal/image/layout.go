package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Annotations of an OCI layout's index that name an image.
const (
	refName       = "org.opencontainers.image.ref.name" // image-spec 1.1, annotations.md
	containerName = "io.containerd.image.name"
)

// A layout is an OCI layout as an origin.
type layout struct{ tree }

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

func (l layout) manifest(_ context.Context, id string) ([]byte, types.MediaType, error) {
	h, err := v1.NewHash(id)
	if err != nil {
		return nil, "", err
	}
	text, err := readFile(l, blobName(h), maxManifest)
	if err == nil {
		err = checkBytes(text, h)
	}
	if err != nil {
		return nil, "", fmt.Errorf("manifest %s: %w", shortID(h), err)
	}
	return text, "", nil
}

func (l layout) blob(_ context.Context, d v1.Descriptor, from int64) (io.ReadCloser, int64, error) {
	return openAt(l.tree, blobName(d.Digest), d, from)
}

func (l layout) distrust(v1.Descriptor, error) bool { return false }

// openAt opens a blob that is a file in a tree.
func openAt(t tree, name string, d v1.Descriptor, from int64) (io.ReadCloser, int64, error) {
	f, size, err := t.open(name)
	if err != nil {
		return nil, 0, refusal{err}
	}
	if size != d.Size {
		err = fmt.Errorf("%s: %w: it is %d bytes, and must be %d", name, ErrDigest, size, d.Size)
	} else {
		_, err = f.Seek(from, io.SeekStart)
	}
	if err != nil {
		return nil, 0, refusal{errors.Join(err, f.Close())}
	}
	return f, from, nil
}

// isLayout tells whether there is an OCI layout in a tree.
func isLayout(t tree) bool {
	_, err := readFile(t, "oci-layout", maxManifest)
	return err == nil
}

// candidates are the images of a layout: all, or the one with a tag.
func (l layout) candidates(ctx context.Context, tag string, o PullOptions) ([]*candidate, error) {
	text, err := readFile(l, "index.json", maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no OCI layout: there is no index.json", ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(text, types.OCIImageIndex)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if doc.list == nil {
		return nil, fmt.Errorf("index.json: %w: not a list of manifests", ErrFormat)
	}
	var list []*candidate
	var tags []string
	for _, group := range byTag(doc.list.Manifests) {
		own := layoutTag(group[0])
		tags = append(tags, own)
		if tag != "" && !tagged(group[0], tag) {
			continue
		}
		c, err := l.candidate(ctx, group, o)
		if err != nil {
			if own != "" {
				err = fmt.Errorf("%s: %w", own, err)
			}
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, notThere(tag, tags)
	}
	return list, nil
}

// notThere is the error for a tag that an archive does not have.
func notThere(tag string, tags []string) error {
	tags = slices.DeleteFunc(tags, func(t string) bool { return t == "" })
	switch {
	case tag == "":
		return fmt.Errorf("%w: no image is in it", ErrNotFound)
	case len(tags) == 0:
		return fmt.Errorf("%s: %w in it: its images have no names", tag, ErrNotFound)
	}
	return fmt.Errorf("%s: %w in it, only %s", tag, ErrNotFound, strings.Join(tags, ", "))
}

// candidate is the image of manifests with the same name, each for another platform.
func (l layout) candidate(ctx context.Context, group []v1.Descriptor, o PullOptions) (*candidate, error) {
	d := group[0]
	if len(group) > 1 {
		var err error
		if d, err = choose(&v1.IndexManifest{Manifests: group}, o.Platform); err != nil {
			return nil, err
		}
	}
	text, _, err := l.manifest(ctx, d.Digest.String())
	if err != nil {
		return nil, err
	}
	c, err := resolve(ctx, l, text, d.MediaType, o)
	if err != nil {
		return nil, err
	}
	if ref, err := ParseReference(layoutName(group[0])); err == nil && ref.Digest == "" {
		c.names = []string{ref.Familiar()}
	}
	return c, nil
}

// byTag puts descriptors with the same tag together, in the order in which they come.
func byTag(list []v1.Descriptor) (groups [][]v1.Descriptor) {
	at := map[string]int{}
	for _, d := range list {
		if d.Platform != nil && d.Platform.OS == "unknown" {
			continue
		}
		tag := layoutTag(d)
		if n, ok := at[tag]; ok && d.Platform != nil {
			groups[n] = append(groups[n], d)
			continue
		}
		at[tag] = len(groups)
		groups = append(groups, []v1.Descriptor{d})
	}
	return groups
}

// layoutTag is what a descriptor is called in a layout.
func layoutTag(d v1.Descriptor) string {
	return cmp.Or(d.Annotations[containerName], d.Annotations[refName])
}

// layoutName is the whole name of an image in a layout, "" if it has only a tag.
func layoutName(d v1.Descriptor) string {
	for _, name := range []string{d.Annotations[containerName], d.Annotations[refName]} {
		if strings.ContainsAny(name, ":/") {
			return name
		}
	}
	return ""
}

// tagged tells whether a descriptor is called tag, which may be a digest too.
func tagged(d v1.Descriptor, tag string) bool {
	if d.Annotations[refName] == tag || d.Annotations[containerName] == tag || d.Digest.String() == tag {
		return true
	}
	want, err := ParseReference(tag)
	have, bad := ParseReference(layoutName(d))
	return err == nil && bad == nil && want == have
}
