package kvmtest

import (
	"os"
	"testing"
	"time"
)

// Soak is how long a test that is too long for every change may take: SOAK of
// the environment, a Go duration. Without it the test is skipped. It needs KVM.
func Soak(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK")
	if text == "" {
		t.Skip("SOAK is not set; make soak runs this")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("SOAK: %v", err)
	}
	Need(t)
	return d
}
