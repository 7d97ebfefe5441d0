// Package kvmtest gives tests a KVM to work with.
package kvmtest

import (
	"cmp"
	"os"
	"testing"

	"github.com/huskvm/husk/kvm"
)

// Device is the KVM device of the tests: what HUSK_KVM names, else /dev/kvm.
func Device() string { return cmp.Or(os.Getenv("HUSK_KVM"), "/dev/kvm") }

// Need opens KVM and closes it when the test ends. Where KVM cannot be opened it
// skips the test, or fails it when the environment has REQUIRE_KVM=1. HUSK_KVM
// names another device than /dev/kvm.
func Need(t testing.TB) *kvm.System {
	t.Helper()
	s, err := kvm.Open(Device())
	if err != nil {
		SkipOrFail(t, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close KVM: %v", err)
		}
	})
	return s
}

// SkipOrFail ends a test for which this host's KVM will not do, and why is the
// reason: it is skipped, or fails when the environment has REQUIRE_KVM=1.
func SkipOrFail(t testing.TB, why error) {
	t.Helper()
	if os.Getenv("REQUIRE_KVM") == "1" {
		t.Fatalf("REQUIRE_KVM=1: %v", why)
	}
	t.Skip(why)
}
