package image

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A fakeDaemon answers as Docker's does.
type fakeDaemon struct {
	images map[string]*built
	cut    bool // break off in an archive
	gets   atomic.Int64
}

func (d *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/images/")
	name, what := name[:strings.LastIndexByte(name, '/')], name[strings.LastIndexByte(name, '/'):]
	b := d.images[name]
	switch {
	case b == nil:
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": "No such image: " + name})
	case what == "/json":
		_ = json.NewEncoder(w).Encode(map[string]string{"Id": b.id().String()})
	case what == "/get":
		d.gets.Add(1)
		p := dockerTar(b.t, b, name, "another:name")
		if d.cut {
			_, _ = w.Write(p[:len(p)/2])
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(p)
	}
}

func TestDaemon(t *testing.T) {
	one := anImage(t, 1)
	d := &fakeDaemon{images: map[string]*built{"app:1": one, "example.com/x/app:latest": one, "cut:1": anImage(t, 2)}}
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := &http.Server{Handler: d}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}()
	here := func(o *PullOptions) { o.DockerHost = "unix://" + socket }

	s := newStore(t)
	i := pull(t, s, "docker-daemon:app:1", here)
	requireImage(t, s, i, one)
	require.Equal(t, []string{"app:1"}, i.Names, "only the name that was asked for")
	i = pull(t, s, "docker-daemon:example.com/x/app", here)
	require.Equal(t, []string{"app:1", "example.com/x/app:latest"}, i.Names)
	require.Equal(t, int64(1), d.gets.Load(), "what is here is not asked for again")
	require.Empty(t, s.files(t, "partial"))

	_, err = s.Pull(context.Background(), "docker-daemon:nosuch", quick(here))
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "No such image: nosuch:latest")
	d.cut = true
	_, err = s.Pull(context.Background(), "docker-daemon:cut:1", quick(here))
	require.ErrorContains(t, err, "EOF")

	_, err = s.Pull(context.Background(), "docker-daemon:app:1", quick(func(o *PullOptions) { o.DockerHost = "tcp://1.2.3.4:2375" }))
	require.ErrorContains(t, err, "unix:///PATH")
	_, err = s.Pull(context.Background(), "docker-daemon:app:1", quick(func(o *PullOptions) { o.DockerHost = "unix:///nosuch.sock" }))
	require.ErrorContains(t, err, "does not run")
}

// TestDaemonSilent: one that says nothing, or nothing more, is not waited for without end.
func TestDaemonSilent(t *testing.T) {
	for what, says := range map[string]string{
		"nothing": "",
		"a part":  "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
	} {
		t.Run(what, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "docker.sock")
			l, err := net.Listen("unix", socket)
			require.NoError(t, err)
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err != nil {
					return
				}
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, says)
				}
				_, _ = io.Copy(io.Discard, c) // until husk has enough
				_ = c.Close()
			}()
			s := newStore(t)
			_, err = s.Pull(context.Background(), "docker-daemon:app:1", quick(func(o *PullOptions) {
				o.DockerHost, o.stall = "unix://"+socket, 50*time.Millisecond
			}))
			require.ErrorIs(t, err, errStalled)
			require.NoError(t, l.Close())
			<-done
		})
	}
}
