package hostkernel

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompareReleases(t *testing.T) {
	// Older before newer.
	ordered := []string{
		"4.19.0-27-amd64",
		"5.10.0-9-amd64",
		"5.10.0-30-amd64",
		"6.1.0-9-amd64",
		"6.1.0-56-amd64",
		"6.1.0-56-cloud-amd64",
		"6.1.100",
		"6.8.0-45-generic",
		"6.8.0-1009-aws", // the number decides, not the flavour
		"6.12-rc1",
		"6.12-rc10",
		"6.12",
		"6.12.1",
		"6.12.27+bpo-amd64",
		"6.12.43+deb13-amd64",
		"7.0.0",
	}
	for i, a := range ordered {
		for j, b := range ordered {
			got := CompareReleases(a, b)
			switch {
			case i < j:
				require.Negative(t, got, "%s is older than %s", a, b)
			case i > j:
				require.Positive(t, got, "%s is newer than %s", a, b)
			default:
				require.Zero(t, got)
			}
		}
	}
	require.Zero(t, CompareReleases("6.01", "6.1"))
}

func TestListIsNewestFirst(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-56-amd64", "vmlinuz-5.10.0-30-amd64", "vmlinuz", "vmlinuz-", "initrd.img-7.0", "config-7.0"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("kernel"), 0o600))
	}
	kernels, err := List(dir)
	require.NoError(t, err)
	var releases []string
	for _, k := range kernels {
		require.NoError(t, k.Err)
		require.Equal(t, filepath.Join(dir, "vmlinuz-"+k.Release), k.Path)
		releases = append(releases, k.Release)
	}
	require.Equal(t, []string{"6.1.0-56-amd64", "6.1.0-9-amd64", "5.10.0-30-amd64"}, releases)

	newest, err := Newest(dir)
	require.NoError(t, err)
	require.Equal(t, kernels[0], newest)
}

func TestNewestSkipsWhatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	older := filepath.Join(dir, "vmlinuz-6.1")
	// Permissions do not stop root, so what cannot be read here are a link to
	// nothing and a directory.
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "vmlinuz-6.3")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "vmlinuz-6.2"), 0o700))

	_, err := Newest(dir)
	require.ErrorIs(t, err, ErrNone)
	require.ErrorContains(t, err, "vmlinuz-6.3: no such file")
	require.ErrorContains(t, err, "vmlinuz-6.2 is not a regular file")
	require.ErrorContains(t, err, "chmod")

	require.NoError(t, os.WriteFile(older, []byte("kernel"), 0o600))
	k, err := Newest(dir)
	require.NoError(t, err)
	require.Equal(t, older, k.Path)
}

func TestNewestWithoutKernels(t *testing.T) {
	_, err := Newest(filepath.Join(t.TempDir(), "missing"))
	require.ErrorIs(t, err, ErrNone)
	require.ErrorContains(t, err, "name one with --kernel")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Newest(file)
	require.ErrorIs(t, err, ErrNone)
}

func TestDefault(t *testing.T) {
	path, err := Default(func(name string) string { return "from " + name })
	require.NoError(t, err)
	require.Equal(t, "from HUSK_KERNEL", path)
	newest, want := Newest(Dir)
	path, err = Default(func(string) string { return "" })
	require.Equal(t, newest.Path, path)
	if want != nil {
		require.ErrorIs(t, err, ErrNone)
		require.ErrorContains(t, err, "or set HUSK_KERNEL")
	}
}
