package guestinit

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/modules"
)

// vmlinux makes as much of an ELF kernel as is looked at here.
func vmlinux(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "vmlinux")
	b := append([]byte("\x7fELF"), make([]byte, 0x300)...)
	b = append(b, "Linux version 0.0.7-husk (me@here) #1\x00"+text...)
	require.NoError(t, os.WriteFile(name, b, 0o600))
	return name
}

// tree makes a tree with files that depend on nothing.
func tree(t *testing.T, builtin string, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	dep := ""
	for _, name := range names {
		dep += "kernel/" + name + ".ko:\n"
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte(builtin), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dep), 0o600))
	return dir
}

func TestModules(t *testing.T) {
	kernel := vmlinux(t, "")
	dir := tree(t, "kernel/drivers/virtio/virtio_pci.ko\n", "vmw_vsock_virtio_transport", "virtio_mmio", "extra", "other")
	list, err := Modules(kernel, dir, "extra")
	require.NoError(t, err)
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
	}
	require.Equal(t, []string{"vmw_vsock_virtio_transport", "extra", "virtio_mmio"}, names)

	_, err = Modules(kernel, dir, "lkdtm")
	require.ErrorIs(t, err, modules.ErrNotFound)
	require.ErrorContains(t, err, kernel+" (0.0.7-husk)")
	require.ErrorContains(t, err, "lkdtm")
	require.ErrorContains(t, err, "--modules")

	_, err = Modules(kernel, "")
	require.ErrorIs(t, err, modules.ErrTree)
	require.ErrorContains(t, err, "0.0.7-husk")
	require.ErrorContains(t, err, "vmw_vsock_virtio_transport")
	require.ErrorContains(t, err, "--modules")
	_, err = Modules(kernel, t.TempDir())
	require.ErrorIs(t, err, modules.ErrTree)
}

func TestModulesOfAKernelWithoutAny(t *testing.T) {
	kernel := vmlinux(t, "\x00vmw_vsock_virtio_transport\x00virtio-pci\x00virtio-thing\x00")
	list, err := Modules(kernel, "")
	require.NoError(t, err)
	require.Empty(t, list)
	_, err = Modules(kernel, "", "virtio_thing")
	require.NoError(t, err)
	_, err = Modules(kernel, "", "lkdtm")
	require.ErrorIs(t, err, modules.ErrTree)
}
