package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// parallelLayers is how many layers of an image are fetched at once, as Docker does.
const parallelLayers = 3

// PullOptions say how an image is fetched. The zero value is what husk does by default.
type PullOptions struct {
	Platform v1.Platform // the zero value for DefaultPlatform
	// Mirrors of the image's registry are asked before it, and before those of Settings.
	Mirrors []string
	// Insecure allows plain HTTP to registries, and certificates that nobody vouches for.
	Insecure bool
	Settings Settings
	Keychain authn.Keychain // nil for Docker's logins: ~/.docker/config.json
	Progress Progress       // nil for none
	// DockerHost is where Docker's daemon is, as DOCKER_HOST has it; "" for the usual place.
	DockerHost string

	firstWait, stall time.Duration
	anyPlatform      bool // one image is taken whatever it is for
}

// withDefaults fills in what was left open.
func (o PullOptions) withDefaults() PullOptions {
	if o.Platform.OS == "" {
		o.Platform = DefaultPlatform()
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	if _, done := o.Progress.(plainProgress); !done {
		o.Progress = plainProgress{o.Progress}
	}
	o.firstWait = cmp.Or(o.firstWait, firstWait)
	o.stall = cmp.Or(o.stall, stall)
	return o
}

// Pull fetches an image: from its registry, or from where the name says (see Source). An
// image that is here already, as the registry has it, is only given its name.
func (s *Store) Pull(ctx context.Context, name string, o PullOptions) (*Image, error) {
	o = o.withDefaults()
	src, err := ParseSource(name)
	if err != nil {
		return nil, err
	}
	adding, err := s.add(ctx)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	i, err := s.pull(ctx, src, o)
	s.release(adding, err)
	_ = s.sweep() // if it fails, the next one tries
	if err != nil && context.Cause(ctx) != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if err != nil {
		return nil, plainly(err)
	}
	return i, nil
}

// pull fetches an image while nothing is collected.
func (s *Store) pull(ctx context.Context, src Source, o PullOptions) (*Image, error) {
	if src.Transport == FromRegistry {
		i, err := s.pullFromRegistry(ctx, src.Reference, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", src.Reference.Familiar(), err)
		}
		return i, nil
	}
	list, err := s.load(ctx, src, o)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

func (s *Store) pullFromRegistry(ctx context.Context, ref Reference, o PullOptions) (*Image, error) {
	list, err := places(ref, o)
	if err != nil {
		return nil, err
	}
	r := newRegistry(list, o)
	defer r.close()
	if i := s.current(ctx, r, ref, o.Platform); i != nil {
		return i, nil
	}
	text, mediaType, err := r.manifest(ctx, ref.identifier())
	if err != nil {
		return nil, err
	}
	c, err := resolve(ctx, r, text, mediaType, o)
	if err != nil {
		return nil, err
	}
	if ref.Digest == "" {
		sum, _, err := v1.SHA256(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		c.names = []string{ref.Familiar()}
		ref.Digest = sum.String()
	}
	c.digests = []string{ref.Familiar()}
	return s.ingest(ctx, r, c, o)
}

// current is the image that is here by that name, if it is whole, for the platform, and
// the registry has no other.
func (s *Store) current(ctx context.Context, r *registry, ref Reference, platform v1.Platform) *Image {
	i, err := s.Get(ref.String())
	if err != nil || !fits(platformOf(&i.Config), platform) || !s.whole(i.record) {
		return nil
	}
	if ref.Digest != "" {
		return i
	}
	digest := r.digest(ctx, ref.Tag)
	ref.Digest = digest
	if digest == "" || !slices.Contains(i.Digests, ref.Familiar()) {
		return nil
	}
	return i
}

// whole tells whether all that an image needs is here.
func (s *Store) whole(r *record) bool {
	for _, h := range r.blobs() {
		if !s.has(h, -1) {
			return false
		}
	}
	for _, l := range r.Layers {
		if !s.has(l.Digest, l.Size) {
			return false
		}
	}
	return true
}

// A candidate is an image that has been found, and not been brought here yet.
type candidate struct {
	config   []byte
	id       v1.Hash
	parsed   *v1.ConfigFile
	manifest []byte // nil where there is none
	digest   v1.Hash
	layers   []v1.Descriptor // bottom first, one for each DiffID
	names    []string
	digests  []string
}

// resolve follows a manifest, or a list of them, to an image for a platform.
func resolve(ctx context.Context, from origin, text []byte, mediaType types.MediaType, o PullOptions) (*candidate, error) {
	for range maxNesting {
		doc, err := parseDocument(text, mediaType)
		if err != nil {
			return nil, err
		}
		if doc.manifest != nil {
			return resolveManifest(ctx, from, text, doc.manifest, o)
		}
		d, err := choose(doc.list, o.Platform)
		if err != nil {
			return nil, err
		}
		if text, _, err = from.manifest(ctx, d.Digest.String()); err != nil {
			return nil, err
		}
		mediaType = d.MediaType
	}
	return nil, fmt.Errorf("manifest: %w: lists of lists, more than %d deep", ErrFormat, maxNesting)
}

// resolveManifest finds the image of a manifest.
func resolveManifest(ctx context.Context, from origin, text []byte, m *v1.Manifest, o PullOptions) (*candidate, error) {
	sum, _, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	config, err := readBlob(ctx, from, m.Config, o.firstWait)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	c := &candidate{config: config, id: m.Config.Digest, manifest: text, digest: sum, layers: m.Layers}
	return c, c.check(o)
}

// check reads the candidate's config, and tells whether it can be an image for the platform.
func (c *candidate) check(o PullOptions) (err error) {
	if c.parsed, err = parseConfig(c.config); err != nil {
		return err
	}
	if n := len(c.parsed.RootFS.DiffIDs); n != len(c.layers) {
		return fmt.Errorf("%w: %d layers, but %d diff_ids in its config", ErrFormat, len(c.layers), n)
	}
	have := platformOf(c.parsed)
	if have.OS == "" && have.Architecture == "" || o.anyPlatform || fits(have, o.Platform) { // old images do not say
		return nil
	}
	return noPlatform(o.Platform, []string{have.String()})
}

// readBlob reads a small blob, and tries again as layers do.
func readBlob(ctx context.Context, from origin, d v1.Descriptor, first time.Duration) ([]byte, error) {
	wait := patience{first: first}
	for {
		r, _, err := from.blob(ctx, d, 0)
		var text []byte
		if err == nil {
			text, err = readAll(r, d.Size)
			err = errors.Join(err, r.Close())
		}
		if err == nil {
			err = checkBytes(text, d.Digest)
		}
		switch {
		case err == nil:
			return text, nil
		case errors.Is(err, ErrDigest) && from.distrust(d, err):
			continue
		}
		if err := wait.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// ingest brings an image into the store.
func (s *Store) ingest(ctx context.Context, from origin, c *candidate, o PullOptions) (*Image, error) {
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	o.Progress.Begin(c.layers)
	layers, err := s.fetchAll(ctx, ix, from, c, o)
	if err != nil {
		return nil, err
	}
	r := &record{ID: c.id, Names: c.names, Digests: c.digests, Layers: layers, Added: time.Now().UTC().Truncate(time.Second)}
	if err := s.putBlob(c.id, c.config); err != nil {
		return nil, err
	}
	if c.manifest != nil {
		if err := s.putBlob(c.digest, c.manifest); err != nil {
			return nil, err
		}
		r.Manifest = &c.digest
	}
	for _, algorithm := range []string{"sha256", "sha512"} {
		if err := syncDir(s.path("blobs", algorithm)); err != nil {
			return nil, err
		}
	}
	err = s.update(ctx, func(ix *index) error {
		r = ix.put(r, s.whole)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.image(r)
}

// putBlob keeps a small blob that was verified.
func (s *Store) putBlob(h v1.Hash, text []byte) error {
	if s.has(h, int64(len(text))) {
		return nil
	}
	return explain(s.putFile(s.blobPath(h), text))
}

// fetchAll has all layers of a candidate here.
func (s *Store) fetchAll(ctx context.Context, ix *index, from origin, c *candidate, o PullOptions) ([]layerRecord, error) {
	layers := make([]layerRecord, len(c.layers))
	var missing []int
	need := int64(0)
	for n, d := range c.layers {
		if l := s.known(ix, d.Digest, c.parsed.RootFS.DiffIDs[n]); l != nil {
			layers[n] = *l
			o.Progress.Advance(d.Digest, d.Size)
			o.Progress.Done(d.Digest, false)
			continue
		}
		missing = append(missing, n)
		need += d.Size
		if info, err := os.Stat(s.partialPath(d.Digest)); err == nil {
			need -= info.Size()
		}
	}
	if err := s.room(need); err != nil {
		return nil, explain(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &fetcher{store: s, progress: o.Progress, first: o.firstWait}
	slots := make(chan struct{}, parallelLayers)
	var wg sync.WaitGroup
	for _, n := range missing {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			l, err := f.fetch(ctx, from, c.layers[n], c.parsed.RootFS.DiffIDs[n])
			if err != nil {
				cancel(err) // the others' errors are of this one
			}
			layers[n] = l
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return layers, nil
}
