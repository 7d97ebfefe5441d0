package vmmtest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/huskvm/husk/internal/doctor"
	"github.com/huskvm/husk/kvm/kvmtest"
)

// canBoot is asked once: to find out takes a tiny guest.
var canBoot = sync.OnceValue(func() error { return doctor.CanBoot(kvmtest.Device()) })

// Need skips a test where this host's KVM boots no stock kernel, and says why: where
// there is none, where it may not be opened, and where it emulates a kernel's
// instructions, as in some nested clouds. When the environment has REQUIRE_KVM=1 the
// test fails instead: a CI job should set it, or its tests may all be skipped one
// day without anybody noticing. HUSK_KVM names another device than /dev/kvm.
func Need(t testing.TB) {
	t.Helper()
	if err := canBoot(); err != nil {
		kvmtest.SkipOrFail(t, fmt.Errorf("%w (husk doctor says more; husk lab -- runs the test where KVM is complete)", err))
	}
}
