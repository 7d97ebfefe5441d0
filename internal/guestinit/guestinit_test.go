package guestinit

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/internal/guestinit/spec"
)

func TestInitramfs(t *testing.T) {
	program, err := Binary()
	if err != nil {
		require.ErrorIs(t, err, ErrNotBuilt)
		require.ErrorContains(t, err, "make")
		require.ErrorIs(t, Initramfs(&bytes.Buffer{}, Options{}), ErrNotBuilt)
		t.Skip("husk-init is not built: make builds it")
	}
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}

	dir := t.TempDir()
	module := filepath.Join(dir, "a-b.ko")
	require.NoError(t, os.WriteFile(module, []byte("a module"), 0o600))
	tool := filepath.Join(dir, "tool")
	require.NoError(t, os.WriteFile(tool, []byte("#!/bin/sh\n"), 0o755))
	require.NoError(t, os.Chmod(tool, 0o755))

	var b bytes.Buffer
	init := spec.Init{Demo: spec.Demo{Do: spec.Exit, Code: 3}}
	require.NoError(t, Initramfs(&b, Options{
		Init:    init,
		Modules: []modules.Module{{Name: "a_b", FS: os.DirFS(dir), Path: "a-b.ko"}},
		Extra:   map[string]string{"/bin/tool": tool},
	}))

	// The console's node needs root; it is left out, and seen in the list.
	list := exec.Command("cpio", "-tv", "--quiet")
	list.Stdin = bytes.NewReader(b.Bytes())
	names, err := list.Output()
	require.NoError(t, err)
	require.Regexp(t, `crw------- .* 5, +1 .* dev/console`, string(names))
	require.Regexp(t, `-rwxr-xr-x .* bin/tool`, string(names))

	root := t.TempDir()
	extract := exec.Command("cpio", "-id", "--quiet", "--no-preserve-owner", "-f", "dev*")
	extract.Dir, extract.Stdin = root, bytes.NewReader(b.Bytes())
	out, err := extract.CombinedOutput()
	require.NoError(t, err, string(out))
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		return b
	}
	require.True(t, bytes.Equal(program, read("init")))
	require.Equal(t, "/.husk/drivers/a_b.ko\n", string(read(spec.Modules)))
	require.Equal(t, "a module", string(read(spec.Drivers+"/a_b.ko")))
	var got spec.Init
	require.NoError(t, json.Unmarshal(read(spec.Path), &got))
	require.Equal(t, init, got)

	var again bytes.Buffer
	require.NoError(t, Initramfs(&again, Options{
		Init: init, Modules: []modules.Module{{Name: "a_b", FS: os.DirFS(dir), Path: "a-b.ko"}}, Extra: map[string]string{"/bin/tool": tool},
	}))
	require.True(t, bytes.Equal(b.Bytes(), again.Bytes()), "the same bytes each time")

	require.ErrorContains(t, Initramfs(&b, Options{Extra: map[string]string{"x": dir + "/none"}}), "none")
	require.ErrorIs(t, Initramfs(&b, Options{Modules: []modules.Module{{Name: "x", FS: os.DirFS(dir), Path: "none.ko"}}}), modules.ErrModule)
}
