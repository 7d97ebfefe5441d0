package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// defaultDockerHost is where Docker's daemon listens.
const defaultDockerHost = "unix:///var/run/docker.sock"

// A daemon is Docker's (Docker Engine API, "Images").
type daemon struct {
	socket string
	base   *http.Transport
	stall  time.Duration // how long it may be silent
}

// slowExport is how many times as long the daemon may be silent before an archive: it
// writes all layers to its disk first.
const slowExport = 20

func newDaemon(host string, stall time.Duration) (*daemon, error) {
	host = cmp.Or(host, defaultDockerHost)
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok || socket == "" {
		return nil, fmt.Errorf("the daemon of Docker at %q (DOCKER_HOST): husk talks to it by a socket of this host, unix:///PATH", host)
	}
	base := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 15 * time.Second}).DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
	}
	return &daemon{socket, base, stall}, nil
}

// get asks for something of an image, and waits so long for an answer to begin. The body
// is as a registry's.
func (d *daemon) get(ctx context.Context, ref Reference, what string, patience time.Duration) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(patience, func() { cancel(errStalled) })
	resp, err := d.ask(ctx, ref, what)
	timer.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = fmt.Errorf("the daemon of Docker at %s: %w: nothing for %v", d.socket, errStalled, patience)
		}
		cancel(nil)
		return nil, err
	}
	return &body{ReadCloser: resp, cancel: cancel, timer: timer, patience: d.stall, ctx: ctx}, nil
}

// ask asks for something of an image.
func (d *daemon) ask(ctx context.Context, ref Reference, what string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/images/"+ref.Familiar()+what, nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.base.RoundTrip(req)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("the daemon of Docker does not run: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the daemon of Docker: %w; members of the group docker may ask it", err)
	case err != nil:
		return nil, fmt.Errorf("the daemon of Docker at %s: %w", d.socket, err)
	case resp.StatusCode == http.StatusOK:
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var answer struct {
		Message string `json:"message"`
	}
	_ = json.NewDecoder(io.LimitReader(resp.Body, maxManifest)).Decode(&answer)
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%w in Docker's daemon: %s", ErrNotFound, plainLine(answer.Message))
	}
	return nil, fmt.Errorf("the daemon of Docker: %s: %s", plainLine(resp.Status), plainLine(answer.Message))
}

// id is what the daemon calls an image.
func (d *daemon) id(ctx context.Context, ref Reference) (v1.Hash, error) {
	body, err := d.get(ctx, ref, "/json", d.stall)
	if err != nil {
		return v1.Hash{}, err
	}
	defer body.Close()
	text, err := readAll(body, maxConfig)
	if err != nil {
		return v1.Hash{}, err
	}
	var answer struct {
		ID v1.Hash `json:"Id"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return v1.Hash{}, fmt.Errorf("the daemon of Docker: %w", err)
	}
	return answer.ID, nil
}

// loadFromDaemon brings an image of Docker's daemon here, unless it is.
func (s *Store) loadFromDaemon(ctx context.Context, ref Reference, o PullOptions) (_ []*Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s:%s: %w", FromDaemon, ref.Familiar(), err)
		}
	}()
	d, err := newDaemon(o.DockerHost, o.stall)
	if err != nil {
		return nil, err
	}
	defer d.base.CloseIdleConnections()
	id, err := d.id(ctx, ref)
	if err != nil {
		return nil, err
	}
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	if r := ix.byID(id); r != nil && s.whole(r) {
		return s.name(ctx, id, ref)
	}
	body, err := d.get(ctx, ref, "/get", slowExport*d.stall)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	t, err := s.spool(ctx, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.close() }()
	tag := ref.Familiar()
	if ref.Digest != "" {
		tag = ""
	}
	return s.loadTree(ctx, t, tag, o, single)
}

// name gives an image that is here a name more.
func (s *Store) name(ctx context.Context, id v1.Hash, ref Reference) ([]*Image, error) {
	var r *record
	err := s.update(ctx, func(ix *index) error {
		if r = ix.byID(id); r == nil {
			return ErrNotFound
		}
		if ref.Digest == "" {
			r = ix.put(&record{ID: id, Names: []string{ref.Familiar()}}, s.whole)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	i, err := s.image(r)
	return []*Image{i}, err
}
