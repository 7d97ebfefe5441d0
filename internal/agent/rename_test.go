package agent

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatAGuestSends: whatever it is, only what was asked for is written.
func TestWhatAGuestSends(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	folder := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	for name, entries := range map[string][]tar.Header{
		"another file":         {file("other")},
		"one more":             {file("asked"), file("other")},
		"the same folder":      {file("asked"), folder("asked")},
		"beside the folder":    {folder("asked"), file("other")},
		"out of the folder":    {folder("asked"), file("asked/../other")},
		"by a link":            {folder("asked"), link("asked/l", ".."), file("asked/l/other")},
		"a link in its place":  {link("asked", "."), file("asked/other")},
		"a link to the parent": {folder("asked"), {Name: "asked/l", Linkname: "other", Typeflag: tar.TypeLink}},
		"nothing":              {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(dir+"/secret", []byte("s"), 0o600))
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range entries {
				require.NoError(t, w.WriteHeader(&h))
			}
			require.NoError(t, w.Close())
			require.Error(t, UnpackAs(dir+"/mine", "asked", &b, true, Unpack))
			require.NoFileExists(t, dir+"/other")
			require.NoFileExists(t, dir+"/asked")
		})
	}
}

// TestAGuestCannotSendHoles: a kilobyte of tar would be exabytes here.
func TestAGuestCannotSendHoles(t *testing.T) {
	h := &tar.Header{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"GNU.sparse.major": "1"}}
	err := rename(io.Discard, tar.NewReader(strings.NewReader("")), h, "x", "y")
	require.ErrorIs(t, err, ErrCopy)
	require.ErrorContains(t, err, "holes")
	require.ErrorContains(t, UnpackAs(t.TempDir()+"/x", "x", bytes.NewReader(make([]byte, 1024)), false, Unpack), "neither a file nor a folder")
}
