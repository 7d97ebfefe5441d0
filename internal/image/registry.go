package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// manifestTypes are what husk asks for.
const manifestTypes = string(types.OCIImageIndex) + ", " + string(types.DockerManifestList) + ", " +
	string(types.OCIManifestSchema1) + ", " + string(types.DockerManifestSchema2) + ", */*"

// An endpoint is a place where a repository can be had, and what is known of it.
type endpoint struct {
	place
	base     *http.Transport
	keychain authn.Keychain
	stall    time.Duration

	connecting sync.Mutex
	client     *http.Client // nil until somebody needed it

	failing sync.Mutex
	failed  error // a mirror that is not asked any more
}

// newEndpoint makes an endpoint. Nothing is asked yet.
func newEndpoint(p place, o PullOptions) *endpoint {
	base := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: o.stall,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   parallelLayers,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // blobs are what they are
	}
	if p.unverified {
		base.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // --insecure asks for it
	}
	keychain := o.Keychain
	if keychain == nil {
		keychain = authn.DefaultKeychain
	}
	return &endpoint{place: p, base: base, keychain: keychain, stall: o.stall}
}

// connect finds out how the registry wants to be talked to, and logs in.
func (e *endpoint) connect(ctx context.Context) (*http.Client, error) {
	e.connecting.Lock()
	defer e.connecting.Unlock()
	if e.client != nil {
		return e.client, nil
	}
	repo, err := e.resource()
	if err != nil {
		return nil, refusal{err}
	}
	auth, noLogin := authn.Resolve(ctx, e.keychain, repo)
	if noLogin != nil { // a missing credential helper is no matter to who needs none
		auth = authn.Anonymous
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.stall, errStalled)
	defer cancel()
	secured, err := transport.NewWithContext(ctx, repo.Registry, auth, onlyTLS{e.base, e.plain}, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = fmt.Errorf("%w: %w", errStalled, err)
		}
		return nil, e.explain(errors.Join(err, noLogin))
	}
	e.client = &http.Client{Transport: withLogin{secured, noLogin}}
	return e.client, nil
}

// close ends the connections.
func (e *endpoint) close() { e.base.CloseIdleConnections() }

// onlyTLS refuses to talk plainly to who must not be talked to so.
type onlyTLS struct {
	inner *http.Transport
	plain bool
}

func (t onlyTLS) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !t.plain {
		return nil, refusal{fmt.Errorf("plain HTTP to %s is not allowed; --insecure allows it", r.URL.Host)}
	}
	return t.inner.RoundTrip(r)
}

// withLogin remembers why there were no credentials.
type withLogin struct {
	http.RoundTripper
	noLogin error
}

// get asks for something in the repository. The body's reads fail when nothing comes for
// too long. Closing it ends the request.
func (e *endpoint) get(ctx context.Context, method, what, id string, header http.Header, wanted ...int) (*http.Response, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	repo, err := e.resource()
	if err != nil {
		return nil, refusal{err}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	url := fmt.Sprintf("%s://%s/v2/%s/%s/%s", repo.Scheme(), repo.RegistryStr(), repo.RepositoryStr(), what, id)
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		cancel(nil)
		return nil, refusal{err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	timer := time.AfterFunc(e.stall, func() { cancel(errStalled) })
	resp, err := client.Do(req)
	if err != nil {
		timer.Stop()
		if errors.Is(context.Cause(ctx), errStalled) {
			err = fmt.Errorf("%w: %w", errStalled, err)
		}
		cancel(nil)
		return nil, e.explain(err)
	}
	timer.Stop()
	b := &body{ReadCloser: resp.Body, cancel: cancel, timer: timer, patience: e.stall, ctx: ctx}
	resp.Body = b
	if err := checkStatus(resp, wanted...); err != nil {
		_ = b.Close()
		return nil, e.explain(errors.Join(err, client.Transport.(withLogin).loginFor(resp)))
	}
	return resp, nil
}

// loginFor is why there were no credentials, if the answer wants some.
func (l withLogin) loginFor(resp *http.Response) error {
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return l.noLogin
	}
	return nil
}

// A body is an answer's, with an end to patience. Its timer runs while it is read: between
// the reads it is husk that is slow.
type body struct {
	io.ReadCloser
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	patience time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.patience)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) && context.Cause(b.ctx) != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// explain says what people can do about an answer.
func (e *endpoint) explain(err error) error {
	registry := strings.TrimPrefix(e.registry, "index.")
	switch statusOf(err) {
	case http.StatusUnauthorized, http.StatusForbidden:
		return refusal{fmt.Errorf("%s: there is no such image, or it needs another login; docker login %s makes one: %w", e, registry, err)}
	case http.StatusNotFound:
		return refusal{fmt.Errorf("%s: %w: %w", e, ErrNotFound, err)}
	case http.StatusTooManyRequests:
		return fmt.Errorf("%s: too many requests; a login or a mirror may help: %w", e, err)
	}
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return refusal{fmt.Errorf("%s talks plain HTTP, which is allowed on the loopback; --insecure allows it here: %w", e, err)}
	}
	var unknown *tls.CertificateVerificationError
	if errors.As(err, &unknown) {
		return refusal{fmt.Errorf("%s: %w; --insecure takes any certificate", e, err)}
	}
	return fmt.Errorf("%s: %w", e, err)
}

// manifest asks for a manifest by tag or digest.
func (e *endpoint) manifest(ctx context.Context, id string) ([]byte, types.MediaType, error) {
	resp, err := e.get(ctx, http.MethodGet, "manifests", id, http.Header{"Accept": {manifestTypes}}, http.StatusOK)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := readAll(resp.Body, maxManifest)
	if err != nil {
		return nil, "", fmt.Errorf("%s: manifest: %w", e, err)
	}
	if h, bad := v1.NewHash(id); bad == nil {
		if err := checkBytes(text, h); err != nil {
			return nil, "", refusal{fmt.Errorf("%s: manifest: %w", e, err)}
		}
	}
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return text, types.MediaType(strings.TrimSpace(mediaType)), nil
}

// readAll reads a text that must not be longer than most bytes.
func readAll(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(text)) > most {
		err = refusal{fmt.Errorf("%w: more than the %d bytes that husk takes", ErrFormat, most)}
	}
	return text, err
}
