package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An origin has an image's manifests and blobs.
type origin interface {
	// manifest gives a manifest or a list of them by its tag or digest. What has a digest
	// is what the digest says.
	manifest(ctx context.Context, id string) ([]byte, types.MediaType, error)
	// blob opens one, from a byte on if it can, else from the first: that is what at says.
	blob(ctx context.Context, d v1.Descriptor, from int64) (r io.ReadCloser, at int64, err error)
	// distrust is told that a blob was not what it should be. It tells whether there is
	// another place to ask.
	distrust(d v1.Descriptor, err error) bool
}

// A registry is an origin: a registry and the mirrors before it.
type registry struct {
	ends     []*endpoint // the registry itself is the last
	progress Progress
	first    time.Duration // see patience

	mu   sync.Mutex
	from map[v1.Hash]*endpoint // who has given a blob
}

func newRegistry(list []place, o PullOptions) *registry {
	r := &registry{progress: o.Progress, first: o.firstWait, from: map[v1.Hash]*endpoint{}}
	for _, p := range list {
		r.ends = append(r.ends, newEndpoint(p, o))
	}
	return r
}

// close ends all connections.
func (r *registry) close() {
	for _, e := range r.ends {
		e.close()
	}
}

// fail has a mirror not be asked any more.
func (r *registry) fail(e *endpoint, err error) {
	e.failing.Lock()
	defer e.failing.Unlock()
	if e.failed == nil {
		e.failed = err
		r.progress.Note(fmt.Sprintf("%v; asking the next", err))
	}
}

// working tells whether an endpoint is still asked.
func (e *endpoint) working() bool {
	e.failing.Lock()
	defer e.failing.Unlock()
	return e.failed == nil
}

// each asks one endpoint after the other, until one answers.
func (r *registry) each(ctx context.Context, ask func(e *endpoint) error) error {
	for _, e := range r.ends {
		if !e.working() {
			continue
		}
		err := ask(e)
		if err == nil || e.mirror == "" || ctx.Err() != nil {
			return err
		}
		r.fail(e, err)
	}
	return errors.New("no registry to ask")
}

func (r *registry) manifest(ctx context.Context, id string) (text []byte, mediaType types.MediaType, err error) {
	wait := patience{first: r.first}
	for {
		err = r.each(ctx, func(e *endpoint) error {
			text, mediaType, err = e.manifest(ctx, id)
			return err
		})
		if err == nil {
			return text, mediaType, nil
		}
		if err := wait.again(ctx, err); err != nil {
			return nil, "", err
		}
	}
}

// digest asks for a manifest's digest alone: registries that count requests do not count
// this one. It is "" if that cannot be told: a mirror that answers, but not this, is asked
// for the manifest next.
func (r *registry) digest(ctx context.Context, id string) (digest string) {
	_ = r.each(ctx, func(e *endpoint) error {
		resp, err := e.get(ctx, http.MethodHead, "manifests", id, http.Header{"Accept": {manifestTypes}}, http.StatusOK)
		switch {
		case statusOf(err) != 0:
			return nil
		case err != nil:
			return err
		}
		digest = resp.Header.Get("Docker-Content-Digest")
		return resp.Body.Close()
	})
	return digest
}

func (r *registry) blob(ctx context.Context, d v1.Descriptor, from int64) (body io.ReadCloser, at int64, err error) {
	err = r.each(ctx, func(e *endpoint) error {
		body, at, err = e.blob(ctx, d, from)
		if err == nil {
			body = &watched{ReadCloser: body, ctx: ctx, registry: r, end: e}
			r.mu.Lock()
			r.from[d.Digest] = e
			r.mu.Unlock()
		}
		return err
	})
	return body, at, err
}

func (r *registry) distrust(d v1.Descriptor, err error) bool {
	r.mu.Lock()
	e := r.from[d.Digest]
	r.mu.Unlock()
	if e == nil || e.mirror == "" {
		return false
	}
	r.fail(e, fmt.Errorf("%s: %w", e, err))
	return true
}

// watched is a blob's body. One that a mirror breaks off is asked for elsewhere.
type watched struct {
	io.ReadCloser
	ctx      context.Context
	registry *registry
	end      *endpoint
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && w.ctx.Err() == nil {
		err = fmt.Errorf("%s: %w", w.end, err)
		if w.end.mirror != "" {
			w.registry.fail(w.end, err)
		}
	}
	return n, err
}

// blob asks for a blob, from a byte on.
func (e *endpoint) blob(ctx context.Context, d v1.Descriptor, from int64) (io.ReadCloser, int64, error) {
	header := http.Header{}
	if from > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := e.get(ctx, http.MethodGet, "blobs", d.Digest.String(), header,
		http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return nil, 0, err
	}
	at := int64(0)
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		_ = resp.Body.Close()
		if from == 0 {
			return nil, 0, refusal{fmt.Errorf("%s: it has no bytes of blob %s", e, d.Digest)}
		}
		return e.blob(ctx, d, 0)
	case http.StatusPartialContent:
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &at); err != nil || at != from {
			_ = resp.Body.Close()
			if from == 0 {
				return nil, 0, refusal{fmt.Errorf("%s: a part of blob %s, and nobody asked for a part", e, d.Digest)}
			}
			return e.blob(ctx, d, 0)
		}
	}
	if n := resp.ContentLength; n >= 0 && at+n != d.Size {
		_ = resp.Body.Close()
		return nil, 0, refusal{fmt.Errorf("%s: blob %s: %w: %d bytes, and its manifest says %d", e, d.Digest, ErrDigest, at+n, d.Size)}
	}
	return resp.Body, at, nil
}
