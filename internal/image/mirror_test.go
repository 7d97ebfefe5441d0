package image

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMirror(t *testing.T) {
	origin, mirror := newHub(t), newHub(t)
	b := anImage(t, 1)
	name := origin.push(t, "team/app", "1", b)
	mirror.push(t, "proxy/team/app", "1", b)
	s := newStore(t)
	i := pull(t, s, name, func(o *PullOptions) { o.Mirrors = []string{mirror.URL + "/proxy"} })
	requireImage(t, s, i, b)
	require.Equal(t, []string{name}, i.Names, "it is called as in its registry")
	require.Empty(t, origin.requests(""), "the mirror has all")
	require.NotEmpty(t, mirror.requests("/v2/proxy/team/app/blobs/"))
}

// TestMirrorFails: whatever a mirror does, the next is asked, and the registry in the end.
func TestMirrorFails(t *testing.T) {
	b := anImage(t, 1)
	other := append([]byte{}, b.layers[1]...)
	other[100] ^= 1
	status := func(path string, code int) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, path) {
					w.WriteHeader(code)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	for what, wrap := range map[string]func(http.Handler) http.Handler{
		"down":        status("/v2/", 502),
		"empty":       status("/manifests/", 404),
		"closed":      status("/blobs/", 403),
		"wrong layer": swap("/blobs/"+sum(b.layers[1]).String(), other),
		"wrong config": swap("/blobs/"+b.id().String(),
			[]byte(strings.Repeat("x", len(b.config)))),
		"breaks off": breakOff(1<<30, 60_000, true),
	} {
		t.Run(what, func(t *testing.T) {
			origin, mirror, second := newHub(t), newHub(t), newHub(t)
			name := origin.push(t, "app", "1", b)
			mirror.push(t, "app", "1", b)
			second.push(t, "app", "1", b)
			mirror.behave(wrap)
			s, n := newStore(t), &notes{}
			requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Mirrors, o.Progress = []string{mirror.URL}, n }), b)
			require.Contains(t, n.all(), "mirror "+mirror.URL)
			require.Contains(t, n.all(), "asking the next")
			require.NotEmpty(t, origin.requests(""))

			s = newStore(t)
			requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Mirrors = []string{mirror.URL, second.URL} }), b)
			require.Empty(t, origin.requests(""), "there is a second mirror")
		})
	}
	origin := newHub(t)
	name := origin.push(t, "app", "1", b)
	closed := newHub(t)
	closed.Close()
	s := newStore(t)
	requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Mirrors = []string{closed.URL} }), b)
	_, err := newStore(t).Pull(context.Background(), origin.host+"/nosuch", quick(func(o *PullOptions) { o.Mirrors = []string{closed.URL} }))
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "registry "+origin.host)
}

// TestMirrorWithoutHead: a mirror that knows no HEAD is asked by GET.
func TestMirrorWithoutHead(t *testing.T) {
	for _, code := range []int{http.StatusMethodNotAllowed, http.StatusNotImplemented} {
		origin, mirror := newHub(t), newHub(t)
		name := origin.push(t, "app", "1", anImage(t, 1))
		mirror.push(t, "app", "1", anImage(t, 1))
		newer := anImage(t, 2)
		mirror.behave(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					w.WriteHeader(code)
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		s, n := newStore(t), &notes{}
		mirrored := func(o *PullOptions) { o.Mirrors, o.Progress = []string{mirror.URL}, n }
		pull(t, s, name, mirrored)
		mirror.push(t, "app", "1", newer)
		requireImage(t, s, pull(t, s, name, mirrored), newer)
		require.Empty(t, n.all())
		require.Empty(t, origin.requests(""))
	}
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	env := func(name string) string { return map[string]string{"XDG_CONFIG_HOME": dir, "HOME": "/home/anna"}[name] }
	file := SettingsFile(env)
	require.Equal(t, filepath.Join(dir, "husk", "config.yaml"), file)
	require.Equal(t, "/home/anna/.config/husk/config.yaml", SettingsFile(func(name string) string { return map[string]string{"HOME": "/home/anna"}[name] }))
	set, err := LoadSettings(file)
	require.NoError(t, err, "it need not be there")
	require.Empty(t, set.Registries)

	origin, mirror := newHub(t), newHub(t)
	b := anImage(t, 1)
	name := origin.push(t, "app", "1", b)
	mirror.push(t, "app", "1", b)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("registries:\n  "+origin.host+":\n    mirrors: ["+mirror.URL+"]\n  docker.io:\n    insecure: true\n"), 0o600))
	set, err = LoadSettings(file)
	require.NoError(t, err)
	s := newStore(t)
	requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Settings = set }), b)
	require.Empty(t, origin.requests(""))

	ref, err := ParseReference("debian")
	require.NoError(t, err)
	list, err := places(ref, PullOptions{Settings: set, Mirrors: []string{"m.example.com/hub"}})
	require.NoError(t, err)
	require.Equal(t, []place{
		{registry: "m.example.com", repository: "hub/library/debian", mirror: "m.example.com/hub"},
		{registry: "docker.io", repository: "library/debian", plain: true, unverified: true},
	}, list)

	for text, says := range map[string]string{
		"registries: {docker.io: {mirror: x}}":                  "mirror not found",
		"registries: {docker.io/x: {}}":                         "HOST:PORT",
		"registries: {docker.io: {mirrors: ['ftp://x.org']}}":   "ftp://x.org",
		"registries: {docker.io: {mirrors: ['x.org/UP/../x']}}": "beginning of a repository",
		"registries: [": "yaml",
	} {
		_, err := parseSettings([]byte(text))
		require.ErrorContains(t, err, says, text)
	}
	_, err = newStore(t).Pull(context.Background(), name, quick(func(o *PullOptions) { o.Mirrors = []string{"http//x"} }))
	require.ErrorContains(t, err, "mirror")
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte("registries:\n  docker.io:\n    mirrors: [https://m.example.com/x, 'localhost:5000']\n    insecure: true\n"))
	f.Add([]byte("registries: {'[::1]:5000': {mirrors: ['http://[::1]']}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := parseSettings(text)
		if err != nil {
			return
		}
		for registry := range set.Registries {
			list, err := places(Reference{Registry: registry, Repository: "x"}, PullOptions{Settings: set})
			require.NoError(t, err)
			for _, p := range list {
				repo, err := p.resource()
				require.NoError(t, err)
				require.Equal(t, p.registry, strings.TrimPrefix(repo.RegistryStr(), "index."))
			}
		}
	})
}

// TestRedirect: blobs may be elsewhere, and logins are not taken there.
func TestRedirect(t *testing.T) {
	store := newHub(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	h := newHub(t, basic)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	store.push(t, "x", "1", b)
	h.behave(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(w, r, store.URL+r.URL.Path, http.StatusTemporaryRedirect)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	store.behave(breakOff(1, 30_000, true))
	auth := base64.StdEncoding.EncodeToString([]byte("anna:secret"))
	dockerLogin(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, h.host, auth))
	s := newStore(t)
	requireImage(t, s, pull(t, s, name, withDockerLogin), b)
	require.NotEmpty(t, store.requests("/blobs/"))
}
