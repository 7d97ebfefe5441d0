package vmm

import (
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/diskboot"
	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/disk/qcow2"
)

// bootable makes a disk of one file system with a kernel, an initrd, and a module.
func bootable(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("mke2fs"); err != nil {
		t.Skipf("no mke2fs here (Debian: e2fsprogs): %v", err)
	}
	const version = "6.1.0-9-test"
	kernel := make([]byte, 0x400) // as much of one as tells its version
	copy(kernel[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(kernel[0x20e:], 0x100)
	copy(kernel[0x300:], version+" (x@y) #1")
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/os-release": "ID=x", "boot/vmlinuz-" + version: string(kernel), "boot/initrd.img-" + version: "initrd",
		"usr/lib/modules/" + version + "/modules.builtin": "", "usr/lib/modules/" + version + "/modules.dep": "kernel/a.ko:\n",
		"usr/lib/modules/" + version + "/kernel/a.ko": "module a",
	} {
		name = filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	image := filepath.Join(t.TempDir(), "image.raw")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 4*mib))
	out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-U", "11111111-aaaa-4bbb-8ccc-222222222222", "-d", root, image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return image
}

func whole(t *testing.T, s boot.Source) string {
	t.Helper()
	p, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size))
	require.NoError(t, err)
	return string(p)
}

func TestLookAtDisk(t *testing.T) {
	raw := bootable(t)
	overlay := filepath.Join(t.TempDir(), "overlay.qcow2")
	require.NoError(t, disk.Create(overlay, 4*mib, qcow2.CreateOptions{Backing: raw, BackingFormat: "raw"}))
	for name, spec := range map[string]disk.Spec{
		"raw": {File: raw}, "raw, said so": {File: raw, Format: disk.Raw}, "overlay": {File: overlay},
		"snapshot": {File: overlay, Snapshot: true}, "read-only": {File: raw, ReadOnly: true}, "direct": {File: raw, Cache: disk.Direct},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := LookAtDisk(spec, nil)
			if spec.Cache == disk.Direct && err != nil && strings.Contains(err.Error(), "O_DIRECT") {
				t.Skip(err) // as in a tmpfs before Linux 6.6
			}
			require.NoError(t, err)
			defer func() { require.NoError(t, k.Close()) }()
			version, err := k.Version()
			require.NoError(t, err)
			require.Equal(t, "6.1.0-9-test", version)
			require.Equal(t, spec.File+": the whole disk (ext4): /boot/vmlinuz-6.1.0-9-test", k.Kernel.Name)
			require.Len(t, k.Initrds, 1)
			require.Equal(t, "initrd", whole(t, k.Initrds[0]))
			require.Equal(t, "root=UUID=11111111-aaaa-4bbb-8ccc-222222222222 ro", k.CommandLine)
			fsys, err := k.Modules()
			require.NoError(t, err)
			tree, err := modules.OpenFS(fsys, fsys.String())
			require.NoError(t, err)
			list, err := tree.Resolve("a")
			require.NoError(t, err)
			b, err := list[0].Read()
			require.NoError(t, err)
			require.Equal(t, "module a", string(b))
		})
	}
}

// Who looks has a reader's locks: others may read meanwhile, and nobody may write.
func TestLookAtDiskLocks(t *testing.T) {
	spec := disk.Spec{File: bootable(t)}
	log := Config{}.withDefaults().Log
	k, err := LookAtDisk(spec, log)
	require.NoError(t, err)
	again, err := LookAtDisk(spec, log)
	require.NoError(t, err)
	require.NoError(t, again.Close())
	_, err = disk.Open(spec, log)
	require.ErrorIs(t, err, disk.ErrInUse)
	require.NoError(t, k.Close())

	d, err := disk.Open(spec, log)
	require.NoError(t, err)
	_, err = LookAtDisk(spec, log)
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorIs(t, err, disk.ErrInUse)
	require.NoError(t, d.Close())
}

// What is added to a disk's initrds comes behind them, and does not replace them.
func TestInitrdsBehindTheDisks(t *testing.T) {
	ours := boot.Source{Name: "ours", Size: 4, ReaderAt: strings.NewReader("ours")}
	cfg := Config{Disks: []disk.Spec{{File: bootable(t)}}, AppendInitrds: []boot.Source{ours}}.withDefaults()
	d, err := openForReading(cfg.Disks[0], cfg.Log)
	require.NoError(t, err)
	defer d.Close()
	_, err = cfg.findKernel([]*disk.Disk{d})
	require.NoError(t, err)
	all := cfg.initrds()
	require.Len(t, all, 2)
	require.Equal(t, "initrd", whole(t, all[0]))
	require.Equal(t, ours, all[1])

	plain := config(t, forever)
	plain.Initrds, plain.AppendInitrds = all[:1], all[1:]
	p, err := PlanOf(plain)
	require.NoError(t, err)
	require.Equal(t, []string{all[0].Name, "ours"}, p.Initrds)
}

func TestLookAtDiskInVain(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.raw")
	require.NoError(t, os.WriteFile(empty, make([]byte, mib), 0o600))
	for want, spec := range map[error]disk.Spec{
		disk.ErrSpec: {}, fs.ErrNotExist: {File: empty + ".none"}, diskboot.ErrNotDisk: {File: empty}, qcow2.ErrFormat: {File: empty, Format: disk.Qcow2},
	} {
		_, err := LookAtDisk(spec, nil)
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorIs(t, err, want)
	}
	d, err := disk.Open(disk.Spec{File: empty}, Config{}.withDefaults().Log) // nothing has kept it locked
	require.NoError(t, err)
	require.NoError(t, d.Close())
}
