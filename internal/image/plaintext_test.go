package image

import (
	"context"
	"net/http"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
)

// TestForeignText: what a registry or an archive says does not control a terminal.
func TestForeignText(t *testing.T) {
	h := newHub(t)
	name := h.push(t, "x", "1", anImage(t, 1))
	evil := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				next.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"errors":[{"code":"X","message":"red\u001b[31m\nhusk: all is well\u009b2J"}]}`))
		})
	}
	h.behave(evil)
	_, err := newStore(t).Pull(context.Background(), name, quick())
	require.ErrorContains(t, err, "red\ufffd[31m husk: all is well\ufffd2J")
	require.Equal(t, http.StatusBadRequest, statusOf(err))

	origin, n := newHub(t), &notes{}
	name = origin.push(t, "x", "1", anImage(t, 1))
	pull(t, newStore(t), name, func(o *PullOptions) { o.Mirrors, o.Progress = []string{h.URL}, n })
	require.Contains(t, n.all(), "red\ufffd[31m husk")

	name = origin.push(t, "y", "1", anImage(t, 1, func(_ *built, c *v1.ConfigFile) { c.Architecture = "\x1b[31m" }))
	_, err = newStore(t).Pull(context.Background(), name, quick())
	require.ErrorIs(t, err, ErrPlatform)
	require.NotContains(t, err.Error(), "\x1b")
}
