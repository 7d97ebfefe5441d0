package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// child starts this test's program as another process, with the same store.
func child(t *testing.T, s *Store, what string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "HUSK_IMAGE_TEST_CHILD="+what, "HUSK_IMAGE_TEST_STORE="+s.dir)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	require.NoError(t, cmd.Start())
	return cmd, &out, &said
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
		cmd       *exec.Cmd
		out, said *bytes.Buffer
	}
	var processes []process
	for range 4 {
		cmd, out, said := child(t, s, "pull "+name)
		processes = append(processes, process{cmd, out, said})
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
		require.NoError(t, p.cmd.Wait(), p.said.String())
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

// TestEverythingTogether: whoever pulls, builds and removes at the same time, what is here
// is whole, and what is gone leaves nothing.
func TestEverythingTogether(t *testing.T) {
	h, s := newHub(t), newStore(t)
	var names []string
	images := map[string]*built{}
	for n := range 3 {
		b := anImage(t, 1, func(b *built, c *v1.ConfigFile) { // they share layers
			keep := n + 1
			b.tars, b.layers, b.types = b.tars[:keep], b.layers[:keep], b.types[:keep]
			c.Config.Env = []string{fmt.Sprint("N=", n)}
		})
		name := h.push(t, "x", fmt.Sprint(n), b)
		names, images[name] = append(names, name), b
	}
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			for round := range 12 {
				name := names[(worker+round)%len(names)]
				err := s.once(name, (worker+round*5)%3)
				if err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	list, err := s.List()
	require.NoError(t, err)
	for _, i := range list {
		requireImage(t, s, i, images[i.Names[0]])
	}
	for _, name := range names {
		_, err := s.Remove(context.Background(), name, true)
		require.True(t, err == nil || errors.Is(err, ErrNotFound), err)
	}
	pull(t, s, names[0])
	remove(t, s, names[0], false)
	require.Empty(t, s.files(t, "blobs"))
	require.Empty(t, s.files(t, "roots"))
	require.Empty(t, s.files(t, "partial"))
}

// once does one thing with an image: it pulls it, has its root, or removes it.
func (s *Store) once(name string, what int) error {
	ctx := context.Background()
	switch what {
	case 0:
		_, err := s.Pull(ctx, name, quick())
		return err
	case 1:
		i, err := s.Find(ctx, name, Missing, quick())
		if err != nil {
			return err
		}
		f, err := s.Root(ctx, i, "list-1", listing(0))
		if err != nil {
			return err
		}
		_, err = os.Stat(f.Name()) // it stays while the file is open
		return errors.Join(err, f.Close())
	}
	_, err := s.Remove(ctx, name, true)
	return err
}

// TestKilledAtAnyTime: wherever a process is killed, the store can be used.
func TestKilledAtAnyTime(t *testing.T) {
	h, s := newHub(t), newStore(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	for n := range 12 {
		cmd, _, _ := child(t, s, "pull "+name)
		time.Sleep(time.Duration(n) * 8 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if i, err := s.Get(name); err == nil {
			requireImage(t, s, i, b)
			remove(t, s, name, false)
		} else {
			require.ErrorIs(t, err, ErrNotFound)
		}
	}
	i := pull(t, s, name)
	requireImage(t, s, i, b)
	for n := range 6 {
		cmd, _, _ := child(t, s, "root "+name)
		time.Sleep(time.Duration(n) * 15 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	f, err := s.Root(context.Background(), i, "list-1", listing(0))
	require.NoError(t, err)
	text, err := io.ReadAll(f)
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(string(text), "\n"))
	require.NoError(t, f.Close())
	remove(t, s, name, false)
	require.Empty(t, s.files(t, "blobs"))
	require.Empty(t, s.files(t, "roots"))
	left, err := filepath.Glob(s.path("*"))
	require.NoError(t, err)
	require.Len(t, left, 6, "the folders, the index and the locks: %s", left)
}
