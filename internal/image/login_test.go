package image

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// basic lets in who knows the password.
func basic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if r.Header.Get("X-Push") == "" && (user != "anna" || password != "secret") {
			w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer lets in who has a token, and gives one to who knows the password.
func bearer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			user, password, _ := r.BasicAuth()
			if user != "anna" || password != "secret" || r.URL.Query().Get("scope") != "repository:x:pull" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, `{"token":"open sesame"}`)
		case r.Header.Get("X-Push") != "" || r.Header.Get("Authorization") == "Bearer open sesame":
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="hub"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
}

// dockerLogin makes the user's home, with a config.json of Docker's.
func dockerLogin(t *testing.T, config string) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_RUNTIME_DIR", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	// The library looks up the home only once in a process.
	t.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker"))
	t.Setenv("REGISTRY_AUTH_FILE", "")
	require.NoError(t, os.MkdirAll(filepath.Join(home, ".docker"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".docker", "config.json"), []byte(config), 0o600))
}

func withDockerLogin(o *PullOptions) { o.Keychain = nil }

func TestLogin(t *testing.T) {
	b := anImage(t, 1)
	for kind, guard := range map[string]func(http.Handler) http.Handler{"basic": basic, "bearer": bearer} {
		t.Run(kind, func(t *testing.T) {
			h := newHub(t, guard)
			name := h.push(t, "x", "1", b)
			auth := base64.StdEncoding.EncodeToString([]byte("anna:secret"))
			dockerLogin(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, h.host, auth))
			s := newStore(t)
			requireImage(t, s, pull(t, s, name, withDockerLogin), b)

			_, err := newStore(t).Pull(context.Background(), name, quick())
			require.ErrorContains(t, err, "docker login "+h.host)
			require.NotContains(t, err.Error(), "secret")

			other := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(other, "config.json"), []byte(`{"auths":{}}`), 0o600))
			t.Setenv("DOCKER_CONFIG", other)
			_, err = newStore(t).Pull(context.Background(), name, quick(withDockerLogin))
			require.ErrorContains(t, err, "docker login "+h.host)
		})
	}
}

// TestCredentialHelper: one that is there gives the password; one that is not is no
// matter, unless the registry wants a login.
func TestCredentialHelper(t *testing.T) {
	h := newHub(t, basic)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "docker-credential-husktest"), []byte("#!/bin/sh\ncat >/dev/null\n"+
		`echo '{"ServerURL":"x","Username":"anna","Secret":"secret"}'`+"\n"), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	dockerLogin(t, fmt.Sprintf(`{"credHelpers":{%q:"husktest"}}`, h.host))
	s := newStore(t)
	requireImage(t, s, pull(t, s, name, withDockerLogin), b)

	dockerLogin(t, `{"credsStore":"husknosuch"}`)
	_, err := newStore(t).Pull(context.Background(), name, quick(withDockerLogin))
	require.ErrorContains(t, err, "docker-credential-husknosuch")
	open := newHub(t)
	name = open.push(t, "x", "1", b)
	s = newStore(t)
	requireImage(t, s, pull(t, s, name, withDockerLogin), b)
}

// TestTLS: certificates are looked at, and plain HTTP is for this host, unless who calls
// says otherwise.
func TestTLS(t *testing.T) {
	h := newHub(t)
	b := anImage(t, 1)
	h.push(t, "x", "1", b)
	secure := httptest.NewUnstartedServer(h.Config.Handler)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	name := strings.TrimPrefix(secure.URL, "https://") + "/x:1"
	_, err := newStore(t).Pull(context.Background(), name, quick())
	require.ErrorContains(t, err, "certificate")
	s := newStore(t)
	requireImage(t, s, pull(t, s, name, func(o *PullOptions) { o.Insecure = true }), b)

	for registry, plain := range map[string]bool{
		"localhost:5000": true, "127.0.0.2": true, "[::1]:5000": true, "x.localhost": true,
		"10.0.0.1:5000": false, "192.168.1.1": false, "docker.io": false, "localhost.example.com": false,
	} {
		list, err := places(Reference{Registry: registry, Repository: "x"}, PullOptions{})
		require.NoError(t, err)
		require.Equal(t, plain, list[0].plain, registry)
		e := newEndpoint(list[0], quick().withDefaults())
		req, err := http.NewRequest(http.MethodGet, "http://"+registry, nil)
		require.NoError(t, err)
		if !plain {
			_, err = onlyTLS{e.base, e.plain}.RoundTrip(req) //nolint:bodyclose // there is none
			require.ErrorContains(t, err, "--insecure")
		}
	}
}
