package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/kvm/kvmtest"
)

// hostileModules are the drivers that the attack takes devices from, and has take
// them again. One that a kernel has not is left out.
var hostileModules = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_rng", "virtio_net", "virtio_console", "virtio_balloon", "vmw_vsock_virtio_transport",
}

// hostileInitrd is husk-init with the program tests/hostile.
func hostileInitrd(t *testing.T, flavour string) string {
	t.Helper()
	program, err := filepath.Abs("../../bin/hostile")
	require.NoError(t, err)
	require.FileExists(t, program, "make bin/hostile builds it")
	trees, err := filepath.Glob(filepath.Join("../../build/kernels", flavour, "lib/modules/*"))
	require.NoError(t, err)
	require.Len(t, trees, 1)
	list, err := modules.Open(trees[0])
	require.NoError(t, err)
	wanted, err := list.Resolve(hostileModules...)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, guestinit.Initramfs(&b, guestinit.Options{Modules: wanted, Extra: map[string]string{"hostile": program}}))
	path := filepath.Join(t.TempDir(), "initrd")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// attack boots a guest that attacks its devices for a time, and tells what it saw.
func attack(t *testing.T, flavour, transport string, length time.Duration, more string) {
	t.Helper()
	need(t)
	dir := t.TempDir()
	disk := func(name string, fill byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{fill}, 4<<20), 0o600))
		return path
	}
	spare := disk("spare.raw", 0x5a)
	r := husk(t, nil, "boot", "--accel=kvm", "-k", kernel(t, flavour, "vmlinuz"), "-i", hostileInitrd(t, flavour), "-m", "256M", "-c", "2",
		"-d", disk("attacked.raw", 0)+",discard=on", "-d", spare+",ro", "-d", disk("snapshot.raw", 1)+",snapshot=on", "--rng",
		"--transport", transport, "--debug-exit", "-a", `loglevel=4 husk.do=run husk.run="/hostile -spare /dev/vdb -time `+length.String()+more+`"`)
	for _, line := range strings.Split(r.stdout, "\n") {
		if strings.HasPrefix(line, "hostile: ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	t.Logf("husk said:\n%s", r.stderr)
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, "hostile: survived")
	require.Less(t, strings.Count(r.stderr, "\n"), 100, "a guest must not flood the log\n%s", r.stderr)
	got, err := os.ReadFile(spare)
	require.NoError(t, err)
	require.Equal(t, 4<<20, bytes.Count(got, []byte{0x5a}))
}

// TestAHostileGuest: husk is there after it, and so are the devices.
func TestAHostileGuest(t *testing.T) {
	for _, transport := range []string{"pci", "mmio"} {
		t.Run(transport, func(t *testing.T) { attack(t, "cloud", transport, 5*time.Second, " -seed 1") })
	}
}

// TestSoakAHostileGuest is the same for SOAK, with another attack each time.
func TestSoakAHostileGuest(t *testing.T) {
	end := time.Now().Add(kvmtest.Soak(t))
	n := 0
	for ; time.Now().Before(end); n++ {
		attack(t, []string{"cloud", "generic"}[n%2], []string{"pci", "pci", "mmio"}[n%3], min(max(time.Until(end).Truncate(time.Second), 5*time.Second), 30*time.Second), "")
	}
	t.Logf("%d guests", n)
}
