// Package kvmtest gives tests a KVM to work with.
package kvmtest

import (
	"cmp"
	"os"
	"testing"

	"github.com/huskvm/husk/kvm"
)

// Need opens KVM and closes it when the test ends. Where KVM cannot be opened it
// skips the test, or fails it when the environment has REQUIRE_KVM=1. HUSK_KVM
// names another device than /dev/kvm.
func Need(t testing.TB) *kvm.System {
	t.Helper()
	s, err := kvm.Open(cmp.Or(os.Getenv("HUSK_KVM"), "/dev/kvm"))
	if err != nil {
		if os.Getenv("REQUIRE_KVM") == "1" {
			t.Fatalf("REQUIRE_KVM=1: %v", err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close KVM: %v", err)
		}
	})
	return s
}
