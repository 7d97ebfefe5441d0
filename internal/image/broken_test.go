package image

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// breakOff ends answers with blobs after some bytes, times times.
func breakOff(times int, after int64, ranges bool) func(http.Handler) http.Handler {
	left := atomic.Int64{}
	left.Store(int64(times))
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !ranges {
				r.Header.Del("Range")
			}
			if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet && left.Add(-1) >= 0 {
				next.ServeHTTP(&cutter{ResponseWriter: w, left: after}, r)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// A cutter lets some bytes through.
type cutter struct {
	http.ResponseWriter
	left int64
}

func (c *cutter) Write(p []byte) (int, error) {
	n := min(int64(len(p)), c.left)
	c.left -= n
	_, err := c.ResponseWriter.Write(p[:n])
	if f, ok := c.ResponseWriter.(http.Flusher); ok && n > 0 {
		f.Flush()
	}
	if err == nil && n < int64(len(p)) {
		err = io.ErrShortWrite
	}
	return int(n), err
}

func TestDroppedConnections(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		h, s := newHub(t), newStore(t)
		b := anImage(t, 1)
		name := h.push(t, "x", "1", b)
		h.behave(breakOff(3, 50_000, ranges))
		n := &notes{}
		requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Progress = n }), b)
		require.Contains(t, n.all(), "going on at 50000 of")
		require.NotEmpty(t, h.requests("bytes=50000-"), "it has asked for the rest")
		for k, l := range b.layers {
			require.Equal(t, int64(len(l)), n.bytes[sum(l)], "progress of layer %d", k)
		}
	}
	h, s := newHub(t), newStore(t)
	name := h.push(t, "x", "1", anImage(t, 1))
	h.behave(breakOff(1<<30, 0, true))
	_, err := s.Pull(context.Background(), name, quick())
	require.ErrorIs(t, err, io.EOF)
	tries := len(h.requests("/blobs/"))
	require.GreaterOrEqual(t, tries, maxTries)
	require.LessOrEqual(t, tries, 2*maxTries, "there is an end to patience; net/http may try twice")
}

// TestBusyRegistry: answers to try again are followed.
func TestBusyRegistry(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	count := atomic.Int64{}
	h.behave(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/v2/x/") && count.Add(1)%2 == 1 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader([]int{429, 503}[count.Load()/2%2])
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	requireImage(t, s, pull(t, s, name), b)
	h.behave(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	})
	_, err := newStore(t).Pull(context.Background(), name, quick())
	require.ErrorContains(t, err, "500")
}

// TestStall: a registry that falls silent is asked again.
func TestStall(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	var once sync.Once
	h.behave(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			silent := false
			if strings.HasSuffix(r.URL.Path, sum(b.layers[0]).Hex) {
				once.Do(func() { silent = true })
			}
			if !silent {
				next.ServeHTTP(w, r)
				return
			}
			_, _ = w.Write(b.layers[0][:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
	})
	n := &notes{}
	requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Progress, o.stall = n, 300e6 }), b)
	require.Contains(t, n.all(), errStalled.Error())
}

// TestInterruptedPull: what has come stays, and the next pull goes on with it.
func TestInterruptedPull(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	ctx, cancel := context.WithCancel(context.Background())
	h.behave(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, sum(b.layers[1]).Hex) {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(&cutter{ResponseWriter: w, left: 70_000}, r)
			for s.partialSize(b.layers[1]) < 70_000 {
				if r.Context().Err() != nil {
					return
				}
			}
			cancel()
			<-r.Context().Done()
		})
	})
	_, err := s.Pull(ctx, name, quick())
	require.ErrorIs(t, err, context.Canceled)
	list, err := s.List()
	require.NoError(t, err)
	require.Empty(t, list)
	h.behave(func(next http.Handler) http.Handler { return next })
	h.requests("")
	requireImage(t, s, pull(t, s, name), b)
	require.Len(t, h.requests(sum(b.layers[1]).Hex+" bytes=70000-"), 1)

	// What was left may be damaged; then the layer is fetched from its beginning.
	s = newStore(t)
	require.NoError(t, os.WriteFile(s.partialPath(sum(b.layers[1])), make([]byte, 1000), 0o600))
	requireImage(t, s, pull(t, s, name), b)
	// Or it is longer than the layer, or as long.
	for _, n := range []int{1 << 20, len(b.layers[1])} {
		s = newStore(t)
		require.NoError(t, os.WriteFile(s.partialPath(sum(b.layers[1])), make([]byte, n), 0o600))
		requireImage(t, s, pull(t, s, name), b)
	}
}

func (s *Store) partialSize(blob []byte) int64 {
	info, err := os.Stat(s.partialPath(sum(blob)))
	if err != nil {
		return 0
	}
	return info.Size()
}
