package boot

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/kvm/kvmtest"
)

// TestSoakBoots boots the cloud kernel again and again for SOAK. Every boot must
// reach power-off, with the console whole from its first line to its last.
func TestSoakBoots(t *testing.T) {
	end := time.Now().Add(kvmtest.Soak(t))
	n := 0
	for ; time.Now().Before(end); n++ {
		cpus := []string{"1", "2", "4"}[n%3]
		r := boot(t, "cloud", "vmlinuz", "poweroff", "-c", cpus, "-a", "loglevel=7")
		r.wantCode(t, 0)
		first, _, _ := strings.Cut(r.stdout, "\n")
		require.Contains(t, first, "Linux version", "boot %d", n)
		require.True(t, strings.HasSuffix(r.stdout, "reboot: Power down\r\n"), "boot %d: %q", n, tail(r.stdout))
	}
	t.Logf("%d boots", n)
	require.Positive(t, n)
}
