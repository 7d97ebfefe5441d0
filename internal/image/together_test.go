package image

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// child starts this test's program as another process, with the same store.
func child(t *testing.T, s *Store, what string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "HUSK_IMAGE_TEST_CHILD="+what, "HUSK_IMAGE_TEST_STORE="+s.dir)
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	require.NoError(t, cmd.Start())
	return cmd, &out, &errors
}

// TestPullTogether: goroutines and processes that pull the same image fetch each layer
// once.
func TestPullTogether(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	h.behave(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				time.Sleep(20 * time.Millisecond) // all come while the first is at it
			}
			next.ServeHTTP(w, r)
		})
	})
	type process struct {
		cmd         *exec.Cmd
		out, errors *bytes.Buffer
	}
	var processes []process
	for range 4 {
		cmd, out, errors := child(t, s, "pull "+name)
		processes = append(processes, process{cmd, out, errors})
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			i, err := s.Pull(context.Background(), name, quick())
			if err != nil || i.ID != b.id() {
				t.Errorf("%v %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, p := range processes {
		require.NoError(t, p.cmd.Wait(), p.errors.String())
		require.Equal(t, b.id().String(), strings.TrimSpace(p.out.String()))
	}
	asked := h.requests("/blobs/")
	for _, l := range b.layers {
		n := 0
		for _, a := range asked {
			if strings.Contains(a, sum(l).Hex) {
				n++
			}
		}
		require.Equal(t, 1, n, "a layer is fetched once: %s", asked)
	}
	i, err := s.Get(name)
	require.NoError(t, err)
	requireImage(t, s, i, b)
	require.Empty(t, s.files(t, "partial"))
}

// TestPullKilled: a process that is killed in the midst of a pull leaves nothing that
// hinders the next one, which goes on where it was.
func TestPullKilled(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	layer := b.layers[2]
	h.behave(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, sum(layer).Hex) {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(&cutter{ResponseWriter: w, left: 90_000}, r)
			<-r.Context().Done()
		})
	})
	cmd, _, _ := child(t, s, "pull "+name)
	for s.partialSize(layer) < 90_000 {
		require.NoError(t, unix.Kill(cmd.Process.Pid, 0), "it has ended before")
		time.Sleep(time.Millisecond)
	}
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	list, err := s.List()
	require.NoError(t, err)
	require.Empty(t, list)

	h.behave(func(next http.Handler) http.Handler { return next })
	h.requests("")
	requireImage(t, s, pull(t, s, name), b)
	require.Len(t, h.requests(sum(layer).Hex+" bytes=90000-"), 1)
	require.Empty(t, s.files(t, "partial"))
}

// TestRootTogether: one builds, the others wait, in this process and in others.
func TestRootTogether(t *testing.T) {
	h, s := newHub(t), newStore(t)
	name := h.push(t, "x", "1", anImage(t, 1))
	i := pull(t, s, name)
	var outs []*bytes.Buffer
	var cmds []*exec.Cmd
	for range 4 {
		cmd, out, _ := child(t, s, "root "+name)
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	texts := make([]string, 4)
	var wg sync.WaitGroup
	for n := range texts {
		wg.Go(func() {
			f, err := s.Root(context.Background(), i, "list-1", listing(20*time.Millisecond))
			if err != nil {
				t.Error(err)
				return
			}
			text, _ := io.ReadAll(f)
			texts[n] = string(text)
			_ = f.Close()
		})
	}
	wg.Wait()
	for n, cmd := range cmds {
		require.NoError(t, cmd.Wait())
		texts = append(texts, outs[n].String())
	}
	for _, text := range texts {
		require.Equal(t, texts[0], text, "all have the same root")
		require.Equal(t, 3, strings.Count(text, "\n"), "and a whole one")
	}
	require.Len(t, s.files(t, "roots"), 1)
}
