package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a1", 32)
	for name, want := range map[string]struct {
		ref      Reference
		familiar string
	}{
		"debian":                        {Reference{hub, "library/debian", "latest", ""}, "debian:latest"},
		"debian:12":                     {Reference{hub, "library/debian", "12", ""}, "debian:12"},
		"docker.io/library/debian":      {Reference{hub, "library/debian", "latest", ""}, "debian:latest"},
		"index.docker.io/team/app":      {Reference{hub, "team/app", "latest", ""}, "team/app:latest"},
		"docker.io/debian":              {Reference{hub, "library/debian", "latest", ""}, "debian:latest"},
		"team/app:v1.0-rc_1":            {Reference{hub, "team/app", "v1.0-rc_1", ""}, "team/app:v1.0-rc_1"},
		"localhost:5000/x":              {Reference{"localhost:5000", "x", "latest", ""}, "localhost:5000/x:latest"},
		"localhost/x":                   {Reference{"localhost", "x", "latest", ""}, "localhost/x:latest"},
		"[::1]:5000/x:1":                {Reference{"[::1]:5000", "x", "1", ""}, "[::1]:5000/x:1"},
		"Host/x":                        {Reference{"Host", "x", "latest", ""}, "Host/x:latest"},
		"ghcr.io/a/b/c__d:1":            {Reference{"ghcr.io", "a/b/c__d", "1", ""}, "ghcr.io/a/b/c__d:1"},
		"debian@" + digest:              {Reference{hub, "library/debian", "", digest}, "debian@" + digest},
		"debian:12@" + digest:           {Reference{hub, "library/debian", "", digest}, "debian@" + digest},
		"docker.io/library/a.b/c":       {Reference{hub, "library/a.b/c", "latest", ""}, "library/a.b/c:latest"},
		"docker.io/localhost/x":         {Reference{hub, "localhost/x", "latest", ""}, "docker.io/localhost/x:latest"},
		strings.Repeat("a", 63):         {Reference{hub, "library/" + strings.Repeat("a", 63), "latest", ""}, strings.Repeat("a", 63) + ":latest"},
		"x:" + strings.Repeat("T", 128): {Reference{hub, "library/x", strings.Repeat("T", 128), ""}, "x:" + strings.Repeat("T", 128)},
	} {
		ref, err := ParseReference(name)
		require.NoError(t, err, name)
		require.Equal(t, want.ref, ref, name)
		require.Equal(t, want.familiar, ref.Familiar())
	}
	for name, says := range map[string]string{
		"":                                     "lower case letters",
		"Debian":                               "must be in lower case",
		"a/B":                                  "must be in lower case",
		"debian:":                              "tag",
		"debian:.x":                            "tag",
		"x:" + strings.Repeat("t", 129):        "at most 128",
		"debian@sha256:1":                      "must be a digest",
		"a//b":                                 "lower case letters",
		"-a":                                   "lower case letters",
		"a_":                                   "lower case letters",
		"a b":                                  "lower case letters",
		"https://example.com/x":                "registry \"https:\"",
		"ex ample.com/x":                       "registry",
		"example.com:port/x":                   "HOST:PORT",
		strings.Repeat("a1", 32):               "it is an ID",
		"x/" + strings.Repeat("a/", 128) + "a": "longer than 255",
		"example.com/":                         "lower case letters",
	} {
		_, err := ParseReference(name)
		require.ErrorIs(t, err, ErrName, name)
		require.ErrorContains(t, err, says)
	}
}

// FuzzReference: a name that is understood is understood the same in both ways to write it.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"debian", "debian:12", "localhost:5000/x", "a.b/c/d:e", "x@sha256:" + strings.Repeat("0", 64), "docker.io/a.b/c", "[::1]/x", "index.docker.io/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseReference(s)
		if err != nil {
			require.ErrorIs(t, err, ErrName)
			return
		}
		for _, again := range []string{ref.String(), ref.Familiar()} {
			same, err := ParseReference(again)
			require.NoError(t, err, again)
			require.Equal(t, ref, same, again)
		}
		require.NotContains(t, ref.Repository, "..")
	})
}

func TestParseSource(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a:b")
	require.NoError(t, os.WriteFile(odd, nil, 0o600))
	for name, want := range map[string]Source{
		"docker-archive:" + odd:            {Transport: FromDockerArchive, Path: odd},
		"docker-archive:" + odd + ":x/y:1": {Transport: FromDockerArchive, Path: odd, Tag: "x/y:1"},
		"oci:" + dir + ":docker.io/x/y:1":  {Transport: FromLayout, Path: dir, Tag: "docker.io/x/y:1"},
		"oci-archive:no/such.tar:1":        {Transport: FromLayoutArchive, Path: "no/such.tar", Tag: "1"},
		"oci-archive:no/such.tar":          {Transport: FromLayoutArchive, Path: "no/such.tar"},
		"docker-daemon:debian:12":          {Transport: FromDaemon, Reference: Reference{hub, "library/debian", "12", ""}},
		"docker://oci:1":                   {Transport: FromRegistry, Reference: Reference{hub, "library/oci", "1", ""}},
		"docker:27":                        {Transport: FromRegistry, Reference: Reference{hub, "library/docker", "27", ""}},
		"oci-x":                            {Transport: FromRegistry, Reference: Reference{hub, "library/oci-x", "latest", ""}},
	} {
		got, err := ParseSource(name)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	for _, name := range []string{"oci:", "docker-archive:", "docker-daemon:A", "docker://", "docker-daemon:"} {
		_, err := ParseSource(name)
		require.ErrorIs(t, err, ErrName, name)
	}
	require.Equal(t, "oci:x:1", Source{Transport: FromLayout, Path: "x", Tag: "1"}.String())
	require.Equal(t, "oci:x", Source{Transport: FromLayout, Path: "x"}.String())
	require.Equal(t, "docker-daemon:debian:12", Source{Transport: FromDaemon, Reference: Reference{hub, "library/debian", "12", ""}}.String())
}

// TestSplitPathNeverLosesAnything, whatever is there.
func TestSplitPathNeverLosesAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[a-z/:.]{1,20}`).Draw(t, "s")
		path, tag := splitPath(s)
		if tag == "" {
			require.Contains(t, []string{path, path + ":"}, s)
			return
		}
		require.Equal(t, s, path+":"+tag)
	})
}

func TestDefaultDir(t *testing.T) {
	env := map[string]string{"HOME": "/home/anna"}
	getenv := func(name string) string { return env[name] }
	dir, err := DefaultDir(getenv)
	require.NoError(t, err)
	require.Equal(t, "/home/anna/.local/share/husk", dir)
	env["XDG_DATA_HOME"] = "relative" // the specification: ignored
	dir, err = DefaultDir(getenv)
	require.NoError(t, err)
	require.Equal(t, "/home/anna/.local/share/husk", dir)
	env["XDG_DATA_HOME"] = "/data"
	dir, err = DefaultDir(getenv)
	require.NoError(t, err)
	require.Equal(t, "/data/husk", dir)
	_, err = DefaultDir(func(string) string { return "" })
	require.ErrorContains(t, err, "HOME")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(filepath.Join(file, "husk"))
	require.ErrorContains(t, err, "XDG_DATA_HOME")
}
