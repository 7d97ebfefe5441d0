package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// nobody is a user without rights, for tests that root runs: root can write what is read-only.
const nobody = 65534

// TestReadOnlyLeftovers: a user can go on with what an earlier version, killed at a bad
// moment, has left read-only.
func TestReadOnlyLeftovers(t *testing.T) {
	h := newHub(t)
	b := anImage(t, 1)
	name := h.push(t, "x", "1", b)
	dir, err := os.MkdirTemp("", "husk-image-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	s, err := Open(filepath.Join(dir, "husk"))
	require.NoError(t, err)
	layers := &record{}
	for _, tar := range b.tars {
		layers.Layers = append(layers.Layers, layerRecord{DiffID: sum(tar)})
	}
	require.NoError(t, os.Mkdir(s.path("roots", "list-1"), 0o700))
	draft := s.path("roots", "list-1", rootName(layers)+draftSuffix)
	require.NoError(t, os.WriteFile(draft, []byte("a part"), 0o400))
	partial := s.partialPath(sum(b.layers[1]))
	require.NoError(t, os.WriteFile(partial, b.layers[1][:1000], 0o400))

	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			require.NoError(t, err)
			return os.Lchown(path, nobody, nobody)
		}))
	}
	for _, what := range []string{"pull", "root"} {
		cmd := exec.Command("/proc/self/exe") // others may not get to it by its name
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HUSK_IMAGE_TEST_CHILD="+what+" "+name, "HUSK_IMAGE_TEST_STORE="+s.dir)
		cmd.SysProcAttr = attr
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", what, out)
	}
	require.NoFileExists(t, partial)
	require.NoFileExists(t, draft)
	for _, path := range []string{s.blobPath(sum(b.layers[1])), s.path("roots", "list-1", rootName(layers))} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o400), info.Mode().Perm())
	}
}
