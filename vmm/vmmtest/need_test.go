package vmmtest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// verdict is what a function did to its test.
type verdict struct {
	testing.TB
	skipped, failed bool
	text            string
}

func (v *verdict) Helper()                   {}
func (v *verdict) Skip(args ...any)          { v.skipped, v.text = true, args[0].(error).Error() }
func (v *verdict) Fatalf(_ string, a ...any) { v.failed, v.text = true, a[0].(error).Error(); panic(v) }

func TestNeed(t *testing.T) {
	before := canBoot
	t.Cleanup(func() { canBoot = before })
	need := func() *verdict {
		v := &verdict{}
		func() {
			defer func() { _ = recover() }()
			Need(v)
		}()
		return v
	}
	canBoot = func() error { return nil }
	require.Equal(t, verdict{}, *need())

	canBoot = func() error { return errors.New("/dev/kvm does not exist") }
	t.Setenv("REQUIRE_KVM", "")
	v := need()
	require.True(t, v.skipped)
	require.Contains(t, v.text, "does not exist (husk doctor")

	t.Setenv("REQUIRE_KVM", "1")
	v = need()
	require.True(t, v.failed)
	require.False(t, v.skipped)
	require.Contains(t, v.text, "does not exist")
}
