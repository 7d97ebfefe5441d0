package boot

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/kvm/kvmtest"
)

// shareGuest is where the guest has the program that uses shares.
const shareGuest = "/bin/shareguest"

// shareInitrd is husk-init with the drivers of virtio-fs and that program.
func shareInitrd(t *testing.T, kernel string) string {
	t.Helper()
	o := guestinit.Options{
		Init:  spec.Init{Guest: &spec.Guest{Port: spec.GuestPort}},
		Extra: map[string]string{shareGuest: guestProgram(t, "shareguest")},
	}
	var err error
	o.Modules, err = guestinit.Modules(kernel, "", "pvpanic_mmio", "button", "evdev", "virtiofs")
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, guestinit.Initramfs(&b, o))
	path := filepath.Join(t.TempDir(), "share.cpio")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// sharing starts a guest with shares, and mounts each at /TAG.
func sharing(t *testing.T, flags []string, shares ...string) *commanded {
	t.Helper()
	need(t)
	k := kernel(t, "cloud", "vmlinuz")
	flags = append(flags, "-k", k, "-i", shareInitrd(t, k), "-m", "256M", "-a", "quiet")
	for _, s := range shares {
		flags = append(flags, "--share", s)
	}
	c := command(t, flags...)
	for _, s := range shares {
		tag, _, _ := strings.Cut(s, "=")
		argv := []string{shareGuest, "mount", tag, "/" + tag}
		if strings.HasSuffix(s, ",ro") && tag != "sly" {
			argv = append(argv, "ro")
		}
		c.must(argv...)
	}
	return c
}

// sharedFolder is a folder of the host on a file system that has all that there is to try:
// the lab's root is an overlay, which has no numbers for inodes that last.
func sharedFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "share")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// TestSharesBehaveAsFileSystems: what is promised to programs, whatever the guest may
// believe for how long.
func TestSharesBehaveAsFileSystems(t *testing.T) {
	useShares(t, nil, func(c *commanded, tag string) {
		c.must(shareGuest, "semantics", "/"+tag)
		c.must(shareGuest, "fsx", "/"+tag, "1", "400")
	})
}

// TestSoakShares is that for SOAK, at least once, with other random operations each time,
// and first on the transport that is not tried above. It says how fast shares are, too.
func TestSoakShares(t *testing.T) {
	end := time.Now().Add(kvmtest.Soak(t))
	guests := 0
	for ; guests < 1 || time.Now().Before(end); guests++ {
		transport, figures := []string{"mmio", "pci"}[guests%2], ""
		useShares(t, []string{"--transport", transport}, func(c *commanded, tag string) {
			c.must(shareGuest, "semantics", "/"+tag)
			c.must(shareGuest, "fsx", "/"+tag, fmt.Sprint(rand.Int32()), "1000")
			if figures == "" {
				figures = c.must(shareGuest, "bench", "/"+tag)
			}
		})
		t.Logf("over %s:\n%s", transport, figures)
	}
	t.Logf("%d guests with two shares each", guests)
}

// useShares has a guest do something to two shares: of the one it believes nothing that
// it knows, of the other it does for a second.
func useShares(t *testing.T, flags []string, use func(c *commanded, tag string)) {
	t.Helper()
	c := sharing(t, flags, "now="+sharedFolder(t), "later="+sharedFolder(t)+",cache=1s")
	for _, tag := range []string{"now", "later"} {
		use(c, tag)
	}
	require.NoError(t, c.PowerOff(t.Context()))
	c.wait(t).wantCode(t, 0)
}

// TestReadOnlySharesAreSoOnTheHost: the guest mounts one for writing.
func TestReadOnlySharesAreSoOnTheHost(t *testing.T) {
	dir := sharedFolder(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("as it is"), 0o666))
	before, err := os.Stat(filepath.Join(dir, "file"))
	require.NoError(t, err)
	c := sharing(t, nil, "honest="+dir+",ro", "sly="+dir+",ro")
	c.must(shareGuest, "readonly", "/honest")
	c.must(shareGuest, "readonly", "/sly")
	after, err := os.Stat(filepath.Join(dir, "file"))
	require.NoError(t, err)
	require.Equal(t, before.Sys().(*syscall.Stat_t).Ctim, after.Sys().(*syscall.Stat_t).Ctim)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// TestChangesAreSeenAtOnce by both sides: neither is told of them.
func TestChangesAreSeenAtOnce(t *testing.T) {
	dir := sharedFolder(t)
	alone := filepath.Join(sharedFolder(t), "alone.txt")
	require.NoError(t, os.WriteFile(alone, []byte("first"), 0o644))
	c := sharing(t, nil, "work="+dir, "one="+alone)

	const rounds = 30
	done := make(chan error, 1)
	go func() {
		for i := range rounds {
			if err := os.WriteFile(filepath.Join(dir, "host"), []byte(fmt.Sprint(i)), 0o644); err != nil {
				done <- err
				return
			}
			for {
				b, err := os.ReadFile(filepath.Join(dir, "guest"))
				if err == nil && string(b) == fmt.Sprint(i) {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
		done <- nil
	}()
	c.must(shareGuest, "watch", "/work", fmt.Sprint(rounds))
	require.NoError(t, <-done)

	// The guest has seen it a moment ago; then it is longer, shorter, another one, gone.
	file := filepath.Join(dir, "sub", "file")
	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o755))
	for _, text := range []string{"1", "longer than before", "short"} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		require.Equal(t, text, c.must("cat", "/work/sub/file"))
	}
	require.NoError(t, os.WriteFile(file+".new", []byte("another"), 0o644))
	require.NoError(t, os.Rename(file+".new", file))
	require.Equal(t, "another", c.must("cat", "/work/sub/file"))
	require.NoError(t, os.RemoveAll(filepath.Dir(file)))
	code, _, _ := c.run(nil, "cat", "/work/sub/file")
	require.NotZero(t, code)
	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte("back"), 0o644))
	require.Equal(t, "back", c.must("cat", "/work/sub/file"))

	require.Equal(t, "first", c.must("cat", "/one/alone.txt"))
	require.NoError(t, os.WriteFile(alone, []byte("second"), 0o644))
	require.Equal(t, "second", c.must("cat", "/one/alone.txt"))
	c.must(shareGuest, "do", "overwrite", "/one/alone.txt")
	b, err := os.ReadFile(alone)
	require.NoError(t, err)
	require.Equal(t, "overwritten", string(b))
}
