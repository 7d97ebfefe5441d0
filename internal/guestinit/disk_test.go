package guestinit

import (
	"bytes"
	"io"
	"os"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/initramfs"
	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/vmm"
)

func TestModulesOfAGivenTree(t *testing.T) {
	tree, err := modules.OpenFS(fstest.MapFS{
		"modules.builtin": {Data: []byte("kernel/drivers/virtio/virtio_pci.ko\n")},
		"modules.dep":     {Data: []byte("kernel/vmw_vsock_virtio_transport.ko: kernel/vsock.ko\nkernel/vsock.ko:\n")},
	}, "disk.img: partition 1 (ext4): /lib/modules/6.1")
	require.NoError(t, err)
	need := []string{"vmw_vsock_virtio_transport"}
	list, err := ModulesOf(tree, need, []string{"virtio_pci", "virtio_mmio"})
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "vsock", list[0].Name)
	require.Equal(t, "vmw_vsock_virtio_transport", list[1].Name)

	_, err = ModulesOf(tree, append(need, "lkdtm"), nil)
	require.ErrorIs(t, err, modules.ErrNotFound)
	require.ErrorContains(t, err, "lkdtm (looked in disk.img: partition 1 (ext4): /lib/modules/6.1)")
	require.ErrorContains(t, err, "--modules")
}

// TestInitramfsForADebianOnADisk packs what a run step adds to the guest of a disk
// image: modules of the image's own kernel.
func TestInitramfsForADebianOnADisk(t *testing.T) {
	const image = "../../build/debian/debian.raw"
	if _, err := os.Stat(image); err != nil {
		t.Skip("no Debian here: tests/install debian makes it")
	}
	k, err := vmm.LookAtDisk(disk.Spec{File: image, Snapshot: true}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, k.Close()) }()
	version, err := k.Version()
	require.NoError(t, err)

	files, err := k.Modules()
	require.NoError(t, err)
	tree, err := modules.OpenFS(files, files.String())
	require.NoError(t, err)
	list, err := ModulesOf(tree, []string{"vmw_vsock_virtio_transport"}, []string{"virtio_pci", "virtio_mmio"})
	require.NoError(t, err)
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
	}
	require.Subset(t, names, []string{"vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"})

	var b bytes.Buffer
	o := Options{Path: "husk-init", Init: spec.Init{Guest: &spec.Guest{Port: spec.GuestPort, Then: "/init"}}, Modules: list}
	if _, err := Binary(); err != nil {
		require.ErrorIs(t, Initramfs(io.Discard, o), ErrNotBuilt)
		t.Skip("husk-init is not built: make builds it")
	}
	require.NoError(t, Initramfs(&b, o))
	require.Contains(t, b.String(), "vermagic="+version+" ")
	require.Contains(t, b.String(), spec.Drivers[1:]+"/vmw_vsock_virtio_transport.ko\x00")
}

// A stranger's modules do not fill the host's memory.
func TestModulesThatAreTooLarge(t *testing.T) {
	large := fstest.MapFS{"a.ko": {Data: make([]byte, 1000)}}
	list := slices.Repeat([]modules.Module{{Name: "a", FS: large, Path: "a.ko", File: "disk.img: a.ko"}}, 3)
	require.NoError(t, addModules(initramfs.NewWriter(io.Discard), list[:2], 2000))
	err := addModules(initramfs.NewWriter(io.Discard), list, 2999)
	require.ErrorContains(t, err, "disk.img: a.ko")
	require.ErrorContains(t, err, "more than 2999 bytes")
}
