package boot

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/kvm/kvmtest"
)

// TestSoakBoots boots the cloud kernel again and again for SOAK. Every boot must
// reach power-off with the whole console out. Every fourth boot is loud, which
// takes longer: its console must be there from the first line on.
func TestSoakBoots(t *testing.T) {
	end := time.Now().Add(kvmtest.Soak(t))
	n := 0
	for ; time.Now().Before(end); n++ {
		began := time.Now()
		cpus, level, first := []string{"1", "2", "4"}[n%3], "quiet", sees
		if n%4 == 3 {
			level, first = "loglevel=7", "] Linux version "
		}
		r := boot(t, "cloud", "vmlinuz", "poweroff", "-c", cpus, "-a", level)
		r.wantCode(t, 0)
		require.Contains(t, r.stdout, first, "boot %d", n)
		require.True(t, strings.HasSuffix(strings.TrimSpace(r.stdout), "reboot: Power down"), "boot %d: %q", n, tail(r.stdout))
		t.Logf("boot %d: %s CPUs, %s, %v", n, cpus, level, time.Since(began).Round(time.Millisecond))
	}
	t.Logf("%d boots", n)
	require.Positive(t, n, "SOAK is too short for a single boot")
}
