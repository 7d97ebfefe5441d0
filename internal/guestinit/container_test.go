package guestinit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/modules"
)

func TestContainerModules(t *testing.T) {
	kernel := vmlinux(t, "")
	dir := tree(t, "kernel/fs/ext4/ext4.ko\n", "virtio_pci", "virtio_mmio", "virtio_blk", "overlay", "erofs",
		"vmw_vsock_virtio_transport", "virtio_net", "virtiofs", "button", "virtio_balloon", "other")
	names := func(n Needs) (names []string) {
		list, err := ContainerModules(kernel, dir, n)
		require.NoError(t, err)
		for _, m := range list {
			names = append(names, m.Name)
		}
		return names
	}
	require.Equal(t, []string{"virtio_pci", "virtio_blk", "overlay", "vmw_vsock_virtio_transport", "button"}, names(Needs{}))
	require.Equal(t,
		[]string{"virtio_pci", "virtio_blk", "overlay", "vmw_vsock_virtio_transport", "erofs", "virtio_net", "virtiofs", "button", "virtio_balloon"},
		names(Needs{FileSystems: []string{"erofs", "ext4"}, Network: true, Volumes: true, Also: []string{"virtio_balloon", "nonesuch"}}))
	require.Contains(t, names(Needs{MMIO: true}), "virtio_mmio")
	require.NotContains(t, names(Needs{MMIO: true}), "virtio_pci")
}

// TestWhatAKernelLacks: all of it is named at once, with the kernel and the remedy.
func TestWhatAKernelLacks(t *testing.T) {
	kernel := vmlinux(t, "")
	dir := tree(t, "kernel/drivers/virtio/virtio_pci.ko\n", "virtio_blk", "erofs", "vmw_vsock_virtio_transport")
	_, err := ContainerModules(kernel, dir, Needs{FileSystems: []string{"erofs"}, Volumes: true})
	require.ErrorIs(t, err, modules.ErrNotFound)
	require.ErrorContains(t, err, "kernel "+kernel+" (0.0.7-husk) lacks overlayfs (CONFIG_OVERLAY_FS, module overlay) and virtio-fs (CONFIG_VIRTIO_FS, module virtiofs): ")
	require.ErrorContains(t, err, "--kernel")

	_, err = ContainerModules(kernel, "", Needs{})
	require.ErrorIs(t, err, modules.ErrTree)
	require.ErrorContains(t, err, "--modules")

	// A kernel without any modules may have all of it built in.
	list, err := ContainerModules(vmlinux(t, "\x00vmw_vsock_virtio_transport\x00"), "", Needs{Volumes: true})
	require.NoError(t, err)
	require.Empty(t, list)
}
