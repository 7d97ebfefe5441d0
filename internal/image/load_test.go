package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// An entry is one of a test's tar.
type entry struct {
	name, link string
	kind       byte
	text       []byte
}

func writeTar(t testing.TB, entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.text)), Mode: 0o644, Typeflag: tar.TypeReg, Linkname: e.link}
		if e.kind != 0 {
			h.Typeflag = e.kind
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write(e.text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// dockerTar is what docker save wrote until it wrote layouts: a layer that is there twice
// is a link.
func dockerTar(t testing.TB, b *built, tags ...string) []byte {
	var entries []entry
	i := dockerImage{Config: b.id().Hex + ".json", RepoTags: tags}
	for n, l := range b.layers {
		dir := sum(b.tars[n]).Hex
		entries = append(entries, entry{name: dir + "/", kind: tar.TypeDir}, entry{name: "./" + dir + "/real.tar", text: l},
			entry{name: dir + "/layer.tar", link: "../" + dir + "/real.tar", kind: tar.TypeSymlink})
		i.Layers = append(i.Layers, dir+"/layer.tar")
	}
	text, err := json.Marshal([]dockerImage{i})
	require.NoError(t, err)
	return writeTar(t, append(entries, entry{name: i.Config, text: b.config}, entry{name: "manifest.json", text: text})...)
}

// fileOf is a file with these bytes.
func fileOf(t testing.TB, p []byte) *os.File {
	path := filepath.Join(t.TempDir(), "archive")
	require.NoError(t, os.WriteFile(path, p, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestLoadDockerArchive(t *testing.T) {
	b := anImage(t, 1)
	archive := dockerTar(t, b, "app:1", "docker.io/library/app:2", "not a name!")
	packed := map[string][]byte{"plain": archive, "gzip": gzipOf(t, archive), "zstd": zstdOf(t, archive)}
	for _, program := range []string{"xz", "bzip2"} {
		cmd := exec.Command(program, "-c")
		cmd.Stdin = bytes.NewReader(archive)
		out, err := cmd.Output()
		if err == nil {
			packed[program] = out
		}
	}
	for kind, p := range packed {
		t.Run(kind, func(t *testing.T) {
			s, n := newStore(t), &notes{}
			list, err := s.Load(context.Background(), fileOf(t, p), "", quick(func(o *PullOptions) { o.Progress = n }))
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.Equal(t, []string{"app:1", "app:2"}, list[0].Names)
			require.Contains(t, n.all(), "not a name!")
			require.Empty(t, list[0].Digest.Hex)
			requireImage(t, s, list[0], b)
			require.Empty(t, s.files(t, "partial"))

			i, err := s.Pull(context.Background(), "docker-archive:"+fileOf(t, p).Name()+":app:2", quick())
			require.NoError(t, err)
			require.Equal(t, b.id(), i.ID)
			_, err = s.Pull(context.Background(), "docker-archive:"+fileOf(t, p).Name()+":app:3", quick())
			require.ErrorIs(t, err, ErrNotFound)
			require.ErrorContains(t, err, "only app:1, app:2")
		})
	}
}

// TestLoadFromPipe: what cannot be read twice is.
func TestLoadFromPipe(t *testing.T) {
	s, b := newStore(t), anImage(t, 1)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	go func() {
		_, _ = w.Write(dockerTar(t, b))
		_ = w.Close()
	}()
	list, err := s.Load(context.Background(), r, "named:1", quick())
	require.NoError(t, err)
	requireImage(t, s, list[0], b)
	require.Equal(t, []string{"named:1"}, list[0].Names)
}

// TestLoadInterrupted: a FIFO that nobody writes to, or goes on to, is not waited for
// without end.
func TestLoadInterrupted(t *testing.T) {
	for what, prepare := range map[string]func(t *testing.T, path string) *os.File{
		"nobody writes": func(*testing.T, string) *os.File { return nil },
		"silent": func(t *testing.T, path string) *os.File {
			w, err := os.OpenFile(path, os.O_RDWR, 0)
			require.NoError(t, err)
			return w
		},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "fifo")
			require.NoError(t, unix.Mkfifo(path, 0o600))
			if w := prepare(t, path); w != nil {
				defer w.Close()
			}
			ctx, cancel := context.WithCancelCause(context.Background())
			enough := errors.New("enough")
			time.AfterFunc(20*time.Millisecond, func() { cancel(enough) })
			_, err := newStore(t).Pull(ctx, "docker-archive:"+path, quick())
			require.ErrorIs(t, err, enough)
		})
	}
	// One that is written to is read, though the writer comes late.
	path := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	s, b := newStore(t), anImage(t, 1)
	r, err := OpenArchive(path)
	require.NoError(t, err)
	defer r.Close()
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, dockerTar(t, b), 0) }()
	list, err := s.Load(context.Background(), r, "", quick())
	require.NoError(t, err)
	requireImage(t, s, list[0], b)
	require.NoError(t, <-written)
}

func TestLoadOtherPlatform(t *testing.T) {
	s, b := newStore(t), anImage(t, 1, forPlatform("linux", "arm64", ""))
	f := fileOf(t, dockerTar(t, b, "arm:1"))
	list, err := s.Load(context.Background(), f, "", quick())
	require.NoError(t, err, "docker load takes it, too")
	require.Equal(t, "linux/arm64", list[0].Platform())
	_, err = s.Find(context.Background(), "docker-archive:"+f.Name(), Missing, quick())
	require.ErrorIs(t, err, ErrPlatform, "but it cannot be run")
	_, err = s.Find(context.Background(), "arm:1", Never, quick())
	require.ErrorIs(t, err, ErrPlatform)
	_, err = s.Find(context.Background(), b.id().Hex[:8], Missing, quick())
	require.ErrorIs(t, err, ErrPlatform)
}

// TestLoadTrouble: archives that are no archives, or lie.
func TestLoadTrouble(t *testing.T) {
	b := anImage(t, 1)
	whole := dockerTar(t, b, "app:1")
	wrong := anImage(t, 1, func(b *built, c *v1.ConfigFile) {
		c.RootFS.DiffIDs = []v1.Hash{sum(b.tars[1]), sum(b.tars[1]), sum(b.tars[2])}
	})
	for name, c := range map[string]struct {
		p    []byte
		says string
	}{
		"empty":     {nil, "neither a docker archive"},
		"text":      {[]byte("hello"), "not a whole tar"},
		"other tar": {tarOf(t, map[string]string{"x": "y"}), "neither a docker archive"},
		"cut":       {whole[:len(whole)/2], "not a whole tar"},
		"cut gzip":  {gzipOf(t, whole)[:100_000], "EOF"},
		"lies":      {dockerTar(t, wrong), ErrDigest.Error()},
		"leads out": {writeTar(t, entry{name: "manifest.json", text: []byte(`[{"Config":"../../../../etc/passwd","Layers":[]}]`)}), "file does not exist"},
		"ring": {writeTar(t, entry{name: "c", link: "d", kind: tar.TypeSymlink}, entry{name: "d", link: "c", kind: tar.TypeSymlink},
			entry{name: "manifest.json", text: []byte(`[{"Config":"c","Layers":[]}]`)}), "file does not exist"},
		"null":         {writeTar(t, entry{name: "manifest.json", text: []byte(`[null]`)}), "without a config"},
		"no":           {writeTar(t, entry{name: "manifest.json", text: []byte(`[]`)}), "no image is in it"},
		"empty layout": {writeTar(t, entry{name: "oci-layout", text: []byte(`{}`)}), "no index.json"},
		"long":         {writeTar(t, entry{name: "manifest.json", text: bytes.Repeat([]byte(" "), maxManifest+1)}), "more than the"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			_, err := s.Load(context.Background(), fileOf(t, c.p), "", quick())
			require.ErrorContains(t, err, c.says)
			list, err := s.List()
			require.NoError(t, err)
			require.Empty(t, list)
			require.Empty(t, s.files(t, "partial"))
		})
	}
	_, err := newStore(t).Pull(context.Background(), "oci:/nosuch/folder:1", quick())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// aLayout writes an OCI layout with images.
func aLayout(t testing.TB, images map[string]*built) string {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700))
	put := func(p []byte) v1.Descriptor {
		require.NoError(t, os.WriteFile(filepath.Join(dir, blobName(sum(p))), p, 0o600))
		return v1.Descriptor{Digest: sum(p), Size: int64(len(p)), MediaType: types.OCIManifestSchema1}
	}
	list := v1.IndexManifest{SchemaVersion: 2}
	for tag, b := range images {
		for _, l := range b.layers {
			put(l)
		}
		put(b.config)
		d := put(b.manifest)
		d.Annotations = map[string]string{refName: tag}
		list.Manifests = append(list.Manifests, d)
	}
	text, err := json.Marshal(list)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "index.json"), text, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600))
	return dir
}

func TestLayout(t *testing.T) {
	one, two := anImage(t, 1), anImage(t, 2)
	dir := aLayout(t, map[string]*built{"one": one, "example.com/two:2": two})
	s := newStore(t)
	i := pull(t, s, "oci:"+dir+":one")
	requireImage(t, s, i, one)
	require.Empty(t, i.Names, "a tag alone is no name")
	i = pull(t, s, "oci:"+dir+":example.com/two:2")
	requireImage(t, s, i, two)
	require.Equal(t, []string{"example.com/two:2"}, i.Names)
	_, err := s.Pull(context.Background(), "oci:"+dir, quick())
	require.ErrorContains(t, err, "2 images are in it")
	_, err = s.Pull(context.Background(), "oci:"+dir+":three", quick())
	require.ErrorIs(t, err, ErrNotFound)

	f, err := os.Open(dir)
	require.NoError(t, err)
	defer f.Close()
	s = newStore(t)
	list, err := s.Load(context.Background(), f, "", quick())
	require.NoError(t, err)
	require.Len(t, list, 2)
	_, err = s.Load(context.Background(), f, "name:1", quick())
	require.ErrorContains(t, err, "name of one only")

	// A blob that has changed, and one that leads out of the folder.
	require.NoError(t, os.WriteFile(filepath.Join(dir, blobName(sum(one.manifest))), one.config, 0o600))
	_, err = newStore(t).Pull(context.Background(), "oci:"+dir+":one", quick())
	require.ErrorIs(t, err, ErrDigest)
	path := filepath.Join(dir, blobName(sum(two.manifest)))
	outside := filepath.Join(t.TempDir(), "manifest")
	require.NoError(t, os.Rename(path, outside))
	require.NoError(t, os.Symlink(outside, path))
	_, err = newStore(t).Pull(context.Background(), "oci:"+dir+":example.com/two:2", quick())
	require.ErrorContains(t, err, "escapes")
}

// TestLoadSome: those that were loaded before one that is broken are told of.
func TestLoadSome(t *testing.T) {
	one, two := anImage(t, 1), anImage(t, 2)
	var entries []entry
	var list []dockerImage
	for n, b := range []*built{one, two} {
		i := dockerImage{Config: b.id().Hex + ".json", RepoTags: []string{fmt.Sprint("app:", n+1)}}
		entries = append(entries, entry{name: i.Config, text: b.config})
		for k, l := range b.layers {
			name := fmt.Sprint(n, "-", k)
			if b == two && k == 2 {
				l = l[:len(l)/2]
			}
			entries = append(entries, entry{name: name, text: l})
			i.Layers = append(i.Layers, name)
		}
		list = append(list, i)
	}
	text, err := json.Marshal(list)
	require.NoError(t, err)
	s := newStore(t)
	images, err := s.Load(context.Background(), fileOf(t, writeTar(t, append(entries, entry{name: "manifest.json", text: text})...)), "", quick())
	require.ErrorIs(t, err, ErrFormat)
	require.Len(t, images, 1)
	requireImage(t, s, images[0], one)
}

// TestSaveAndLoad: what is saved is what was there, and it is the same each time.
func TestSaveAndLoad(t *testing.T) {
	h, s := newHub(t), newStore(t)
	one, two := anImage(t, 1), anImage(t, 2)
	first, second := h.push(t, "one", "1", one), h.push(t, "two", "latest", two)
	pull(t, s, first)
	pull(t, s, second)
	for _, format := range []Format{DockerArchive, OCIArchive} {
		var b, again bytes.Buffer
		require.NoError(t, s.Save(context.Background(), &b, []string{first, second, one.id().Hex}, format))
		require.NoError(t, s.Save(context.Background(), &again, []string{first, second, one.id().Hex}, format))
		require.True(t, bytes.Equal(b.Bytes(), again.Bytes()))
		other := newStore(t)
		list, err := other.Load(context.Background(), fileOf(t, b.Bytes()), "", quick())
		require.NoError(t, err)
		require.Len(t, list, 2)
		for name, b := range map[string]*built{first: one, second: two} {
			i, err := other.Get(name)
			require.NoError(t, err)
			requireImage(t, other, i, b)
			if format == OCIArchive {
				require.Equal(t, sum(b.manifest), *i.record.Manifest, "with its own manifest")
			}
		}
		// From one format into the other, and from there into a folder.
		b.Reset()
		require.NoError(t, other.Save(context.Background(), &b, []string{first}, OCIArchive))
		third := newStore(t)
		list, err = third.Load(context.Background(), fileOf(t, b.Bytes()), "", quick())
		require.NoError(t, err)
		requireImage(t, third, list[0], one)
		dir := filepath.Join(t.TempDir(), "layout")
		require.NoError(t, third.SaveFolder(context.Background(), dir, []string{first}))
		fourth := newStore(t)
		requireImage(t, fourth, pull(t, fourth, "oci:"+dir+":"+first), one)
		require.ErrorContains(t, third.SaveFolder(context.Background(), dir, []string{first}), "not empty")
	}
	require.ErrorIs(t, s.Save(context.Background(), io.Discard, []string{"nosuch"}, DockerArchive), ErrNotFound)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, s.Save(ctx, io.Discard, []string{first}, DockerArchive), context.Canceled)

	l, err := s.Get(first)
	require.NoError(t, err)
	damage(t, s.blobPath(l.record.Layers[1].Digest))
	for _, format := range []Format{DockerArchive, OCIArchive} {
		require.Error(t, s.Save(context.Background(), io.Discard, []string{first}, format), "a damaged layer is not saved")
	}
	dir := filepath.Join(t.TempDir(), "layout")
	require.ErrorIs(t, s.SaveFolder(context.Background(), dir, []string{first}), ErrDigest)
	require.NoDirExists(t, dir)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.ErrorIs(t, s.SaveFolder(context.Background(), dir, []string{first}), ErrDigest)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestSaveSHA512: names that are long make no trouble in a tar.
func TestSaveSHA512(t *testing.T) {
	long := func(p []byte) v1.Hash {
		h, err := v1.Hasher("sha512")
		require.NoError(t, err)
		h.Write(p)
		return sumOf("sha512", h)
	}
	b := anImage(t, 1, func(b *built, c *v1.ConfigFile) {
		for _, p := range b.tars {
			c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, long(p))
		}
	})
	m := v1.Manifest{SchemaVersion: 2, MediaType: b.manifestType, Config: v1.Descriptor{MediaType: b.configType, Size: int64(len(b.config)), Digest: long(b.config)}}
	for n, l := range b.layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: b.types[n], Size: int64(len(l)), Digest: long(l)})
	}
	var err error
	b.manifest, err = json.Marshal(m)
	require.NoError(t, err)
	dir := aLayout(t, map[string]*built{"example.com/x:1": b})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "blobs", "sha512"), 0o700))
	for _, p := range append(b.layers, b.config) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, blobName(long(p))), p, 0o600))
	}
	s := newStore(t)
	i := pull(t, s, "oci:"+dir)
	for _, format := range []Format{DockerArchive, OCIArchive} {
		var saved bytes.Buffer
		require.NoError(t, s.Save(context.Background(), &saved, []string{i.Names[0]}, format))
		list, err := newStore(t).Load(context.Background(), fileOf(t, saved.Bytes()), "", quick())
		require.NoError(t, err)
		require.Equal(t, i.Names, list[0].Names)
	}
}

// damage changes a byte in the middle of a file.
func damage(t testing.TB, path string) {
	require.NoError(t, os.Chmod(path, 0o600))
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	p[len(p)/2] ^= 1
	require.NoError(t, os.WriteFile(path, p, 0o600))
}
