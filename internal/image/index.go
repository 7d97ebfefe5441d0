package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// indexVersion is that of index.json's form.
const indexVersion = 1

// An index is which images a store has. It is written whole, and replaced by a rename,
// so who only reads needs no lock.
type index struct {
	Version int       `json:"version"`
	Images  []*record `json:"images"`
}

// A record is an image. All its blobs are in the store before it is.
type record struct {
	ID       v1.Hash       `json:"id"`                 // the digest of its config
	Names    []string      `json:"names,omitempty"`    // "debian:12"; no other image has them
	Digests  []string      `json:"digests,omitempty"`  // "debian@sha256:…": what registries call it, the newest first
	Manifest *v1.Hash      `json:"manifest,omitempty"` // its manifest, if it came with one
	Layers   []layerRecord `json:"layers"`             // bottom first
	Added    time.Time     `json:"added"`
}

// A layerRecord is a layer: the blob, and the tar in it.
type layerRecord struct {
	Digest    v1.Hash         `json:"digest"` // of the blob
	Size      int64           `json:"size"`   // of the blob, in bytes
	MediaType types.MediaType `json:"media_type"`
	DiffID    v1.Hash         `json:"diff_id"`  // of the tar
	TarSize   int64           `json:"tar_size"` // of the tar, in bytes
}

// size is that of the image's tars together.
func (r *record) size() (n int64) {
	for _, l := range r.Layers {
		n += l.TarSize
	}
	return n
}

// blobs are the blobs that the image needs.
func (r *record) blobs() []v1.Hash {
	list := []v1.Hash{r.ID}
	if r.Manifest != nil {
		list = append(list, *r.Manifest)
	}
	for _, l := range r.Layers {
		list = append(list, l.Digest)
	}
	return list
}

// readIndex reads which images there are now.
func (s *Store) readIndex() (*index, error) {
	text, err := os.ReadFile(s.path("index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &index{Version: indexVersion}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	ix, err := parseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("images: %s: %w", s.path("index.json"), err)
	}
	return ix, nil
}

// parseIndex reads the text of an index.
func parseIndex(text []byte) (*index, error) {
	ix := &index{}
	if err := json.Unmarshal(text, ix); err != nil {
		return nil, fmt.Errorf("%w; without this file, husk starts with no images", err)
	}
	if ix.Version != indexVersion {
		return nil, fmt.Errorf("version %d, and this husk knows %d: it is another husk's", ix.Version, indexVersion)
	}
	if slices.Contains(ix.Images, nil) {
		return nil, errors.New("an image that is null; without this file, husk starts with no images")
	}
	return ix, nil
}

// update changes the index. change sees it as it is, and no other process changes it
// meanwhile.
func (s *Store) update(ctx context.Context, change func(ix *index) error) error {
	lock, err := lockFile(ctx, s.path("index.lock"), exclusive)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer lock.Close()
	ix, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := change(ix); err != nil {
		return err
	}
	slices.SortStableFunc(ix.Images, func(a, b *record) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", " ")
	if err := e.Encode(ix); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	draft, err := os.OpenFile(s.path("index.json.draft"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // we alone write it
	if err == nil {
		err = replaceFile(draft, s.path("index.json"), text.Bytes())
	}
	if err != nil {
		return fmt.Errorf("images: %w", explain(err))
	}
	return nil
}

// byID is the image with that ID, nil if there is none.
func (ix *index) byID(id v1.Hash) *record {
	for _, r := range ix.Images {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// put adds an image, or what is new of one that is there: its names, which others lose,
// and its digests. The blobs of one that is there stay, unless they are damaged.
func (ix *index) put(r *record, whole func(*record) bool) *record {
	for _, name := range r.Names {
		ix.untag(name)
	}
	old := ix.byID(r.ID)
	if old == nil {
		ix.Images = append(ix.Images, r)
		return r
	}
	old.Names = union(old.Names, r.Names)
	for _, d := range slices.Backward(r.Digests) { // the newest first
		old.Digests = append([]string{d}, slices.DeleteFunc(old.Digests, func(other string) bool { return other == d })...)
	}
	if len(r.Layers) > 0 && !whole(old) {
		old.Layers, old.Manifest = r.Layers, r.Manifest
	}
	if old.Manifest == nil {
		old.Manifest = r.Manifest
	}
	return old
}

// untag takes a name away from the image that has it.
func (ix *index) untag(name string) {
	for _, r := range ix.Images {
		r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return n == name })
	}
}

// union is a with what b has more, sorted.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
