package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
)

// newImageHost is a host with a store of images in a folder of the test's.
func newImageHost(t *testing.T) *fakeHost {
	h := newFakeHost(t)
	dir := t.TempDir()
	h.getenv = func(name string) string {
		return map[string]string{"XDG_DATA_HOME": dir, "XDG_CONFIG_HOME": filepath.Join(dir, "config")}[name]
	}
	t.Setenv("DOCKER_CONFIG", dir) // without logins
	return h
}

// ok runs a command line that must end well, and gives its output.
func (h *fakeHost) ok(t *testing.T, args ...string) string {
	t.Helper()
	h.out, h.err = buffer{}, buffer{}
	require.Equal(t, exitOK, h.husk(args...), h.err.String())
	return h.out.String()
}

// fails runs a command line that must not, and gives what it complains of.
func (h *fakeHost) fails(t *testing.T, args ...string) string {
	t.Helper()
	h.out, h.err = buffer{}, buffer{}
	require.Equal(t, exitFailed, h.husk(args...))
	return h.err.String()
}

// pushImage pushes an image to a registry of the test's, and gives its name.
func pushImage(t *testing.T, host, repository string, labels map[string]string) (string, v1.Image) {
	i, err := random.Image(100_000, 2)
	require.NoError(t, err)
	c, err := i.ConfigFile()
	require.NoError(t, err)
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Config.Labels = "linux", "amd64", labels
	c.Created = v1.Time{Time: time.Now().Add(-3 * 24 * time.Hour)}
	i, err = mutate.ConfigFile(i, c)
	require.NoError(t, err)
	ref, err := name.ParseReference(host + "/" + repository)
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, i))
	return ref.Name(), i
}

func testRegistry(t *testing.T) string {
	server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestImageVerbs(t *testing.T) {
	h, host := newImageHost(t), testRegistry(t)
	one, i := pushImage(t, host, "app:1", map[string]string{"team": "a"})
	two, _ := pushImage(t, host, "other/app:2", nil)
	id, err := i.ConfigName()
	require.NoError(t, err)
	digest, err := i.Digest()
	require.NoError(t, err)

	out := h.ok(t, "pull", one)
	require.Equal(t, "Digest: "+digest.String()+"\nStatus: Downloaded newer image for "+one+"\n"+one+"\n", out)
	require.Contains(t, h.err.String(), one+": layers: 2, size: ")
	require.Equal(t, 2, strings.Count(h.err.String(), ": pulled\n"))
	require.Contains(t, h.ok(t, "pull", one), "Status: Image is up to date for "+one)
	require.Equal(t, id.String()+"\n", h.ok(t, "pull", "-q", one))
	require.Empty(t, h.err.String())
	h.ok(t, "pull", "-q", two)

	out = h.ok(t, "images")
	require.Regexp(t, `^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE\n`, out)
	require.Regexp(t, host+`/app +1 +`+id.Hex[:12]+` +3 days ago +20\dkB\n`, out)
	require.Regexp(t, host+`/other/app +2 `, out)
	require.Regexp(t, `DIGEST +IMAGE ID[^$]*`+digest.String(), h.ok(t, "images", "--digests"))
	require.Contains(t, h.ok(t, "images", "--no-trunc"), id.String())
	require.Equal(t, id.Hex[:12]+"\n", h.ok(t, "images", "-q", host+"/app"))
	require.Equal(t, id.Hex[:12]+"\n", h.ok(t, "images", "-q", "*/app:*"))
	require.Equal(t, id.Hex[:12]+"\n", h.ok(t, "images", "-q", "--filter", "label=team=a"))
	require.Empty(t, h.ok(t, "images", "-q", "--filter", "label=team=b"))
	require.Empty(t, h.ok(t, "images", "-q", "--filter", "dangling=true"))
	require.Equal(t, host+"/app:1 3 days ago\n", h.ok(t, "images", "--format", "{{.Repository}}:{{.Tag}} {{.CreatedSince}}", one))
	require.Regexp(t, `^TAG +IMAGE ID\n1 +`+id.Hex[:12]+`\n$`, h.ok(t, "images", "--format", `table {{.Tag}}\t{{.ID}}`, one))
	var row map[string]any
	require.NoError(t, json.Unmarshal([]byte(h.ok(t, "images", "--format", "json", one)), &row))
	require.Equal(t, host+"/app", row["Repository"])
	require.Equal(t, digest.String(), row["Digest"])

	file := filepath.Join(t.TempDir(), "app.tar")
	h.ok(t, "save", "-o", file, one)
	h.ok(t, "save", "--format", "oci", "-o", file+".oci", one, two)
	h.ok(t, "save", "--format", "oci-dir", "-o", file+".d", two)
	out = h.ok(t, "save", one)
	saved, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(saved, []byte(out)), "a file has what standard output has")

	out = h.ok(t, "rmi", one, two)
	require.Contains(t, out, "Untagged: "+one+"\n")
	require.Contains(t, out, "Deleted: "+id.String()+"\n")
	require.Contains(t, h.fails(t, "rmi", one), "no such image here")
	h.ok(t, "rmi", "-f", one)
	require.Equal(t, "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n", h.ok(t, "images"))

	require.Equal(t, "Loaded image: "+one+"\n", h.ok(t, "load", "-i", file))
	require.Equal(t, "Loaded image: "+one+"\nLoaded image: "+two+"\n", h.ok(t, "load", "-q", "-i", file+".oci"))
	require.Equal(t, "Loaded image: "+two+"\nLoaded image: renamed:latest\n", h.ok(t, "load", "-t", "renamed", "-i", file+".d"))
	in, err := os.Open(file)
	require.NoError(t, err)
	defer in.Close()
	h.stdin = in
	require.Equal(t, "Loaded image: "+one+"\n", h.ok(t, "load"))
	require.Contains(t, h.fails(t, "rmi", h.ok(t, "images", "-q", "*renamed*")[:12]), "--force")
}

func TestImageVerbsGetWrongUsage(t *testing.T) {
	h, host := newImageHost(t), testRegistry(t)
	one, _ := pushImage(t, host, "app:1", nil)
	h.ok(t, "pull", "-q", one)
	for says, args := range map[string][]string{
		"no NAME":                        {"pull"},
		"must be in lower case":          {"pull", "Debian"},
		"--platform":                     {"pull", "--platform", "a/b/c/d", one},
		"none for linux/arm64, only for": {"pull", "--platform", "linux/arm64", one},
		"mirror \"ftp://x\"":             {"pull", "--mirror", "ftp://x", one},
		"no such image":                  {"pull", host + "/nosuch"},
		"unexpected argument":            {"images", "a", "b"},
		"--filter \"x=y\"":               {"images", "--filter", "x=y"},
		"dangling=true or":               {"images", "--filter", "dangling=x"},
		"can't evaluate field Nosuch":    {"images", "--format", "{{.Nosuch}}"},
		"unclosed action":                {"images", "--format", "{{"},
		"syntax error in pattern":        {"images", "[a"},
		"no IMAGE given":                 {"rmi"},
		"--format \"zip\"":               {"save", "--format", "zip", one},
		"needs a folder":                 {"save", "--format", "oci-dir", one},
		"is a directory":                 {"save", "-o", t.TempDir(), one},
		"nosuch":                         {"save", "-o", filepath.Join(t.TempDir(), "x"), "nosuch"},
		"no such file":                   {"load", "-i", "/nosuch"},
		"not a whole tar":                {"load", "-i", "image_test.go"},
		"unexpected argument \"x\"":      {"load", "x"},
	} {
		require.Contains(t, h.fails(t, args...), says, args)
	}
	config := filepath.Join(h.getenv("XDG_CONFIG_HOME"), "husk", "config.yaml")
	require.NoError(t, os.MkdirAll(filepath.Dir(config), 0o700))
	require.NoError(t, os.WriteFile(config, []byte("registry: x"), 0o600))
	require.Contains(t, h.fails(t, "pull", one), config)
	h.getenv = func(string) string { return "" }
	require.Contains(t, h.fails(t, "images"), "XDG_DATA_HOME")
}

// TestPullOnATerminal: there is a bar, which goes when all is there.
// TestReplaceWhole: what is in the folder of an output is not written through, and not left.
func TestReplaceWhole(t *testing.T) {
	dir := t.TempDir()
	out, victim := filepath.Join(dir, "out"), filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("mine"), 0o600))
	require.NoError(t, os.Symlink(victim, filepath.Join(dir, fmt.Sprintf(".out.%d", os.Getpid()))))
	write := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			_, _ = io.WriteString(w, text)
			return err
		}
	}
	require.NoError(t, replaceWhole(out, write("whole", nil)))
	require.ErrorIs(t, replaceWhole(out, write("half", io.ErrShortWrite)), io.ErrShortWrite)
	for path, want := range map[string]string{out: "whole", victim: "mine"} {
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 3)
}

func TestPullOnATerminal(t *testing.T) {
	h, host := newImageHost(t), testRegistry(t)
	one, _ := pushImage(t, host, "app:1", nil)
	master, slave, err := pty.Open()
	require.NoError(t, err)
	defer master.Close()
	require.NoError(t, pty.Setsize(slave, &pty.Winsize{Rows: 24, Cols: 100}))
	shown := make(chan string)
	go func() {
		text, _ := io.ReadAll(master)
		shown <- string(text)
	}()
	h.stderr = slave
	h.ok(t, "pull", one)
	require.NoError(t, slave.Close())
	text := <-shown
	require.Contains(t, text, one+", 0 of 2 layers")
	require.NotContains(t, text, "pulled")
	last := text[strings.LastIndexByte(strings.TrimRight(text, "\r"), '\r')+1:]
	require.Empty(t, strings.TrimSpace(last), "the bar is gone in the end")
}

func TestHumanUnits(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 999: "999B", 1000: "1kB", 117_200_000: "117MB", 4_265_000: "4.26MB",
		999_499: "999kB", 999_600: "1MB", 1 << 62: "4.61e+03PB",
	} {
		require.Equal(t, want, humanSize(n))
	}
	for d, want := range map[time.Duration]string{
		0: "Less than a second ago", time.Second: "1 second ago", 59 * time.Second: "59 seconds ago",
		time.Minute: "About a minute ago", 59 * time.Minute: "59 minutes ago", time.Hour: "About an hour ago",
		47 * time.Hour: "47 hours ago", 48 * time.Hour: "2 days ago", 14 * 24 * time.Hour: "2 weeks ago",
		60 * 24 * time.Hour: "2 months ago", 800 * 24 * time.Hour: "2 years ago", -time.Hour: "Less than a second ago",
	} {
		require.Equal(t, want, humanAge(d), d)
	}
}
