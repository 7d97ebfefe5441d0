package vmmtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/testvm"
	"github.com/huskvm/husk/vmm"
)

// A VM is a guest that runs for a test. Methods without an error among their results
// fail the test when they cannot do what they say, and so are for its goroutine
// (testing.T.FailNow); the others can be called from any.
type VM struct {
	t     testing.TB
	guest *testvm.Guest
	ctx   context.Context // ends when the guest's time is up
}

// errTimeUp is why a guest was ended whose time was up.
type errTimeUp time.Duration

func (e errTimeUp) Error() string {
	return fmt.Sprintf("the guest's time was up after %v (Config.Timeout, and the test's own -timeout)", time.Duration(e))
}

// Start boots a guest and returns at once: what follows waits for it. The guest ends
// with the test, by t.Cleanup, and if the test has failed then, its log has the
// guest's console. When no guest can be started, the test fails, with what to do
// about it; Need, called first, skips it where KVM is the reason.
func Start(t testing.TB, cfg Config) *VM {
	t.Helper()
	if err := canBoot(); err != nil {
		t.Fatalf("no guest: %v; husk doctor says what to do; vmmtest.Need(t) skips the test here", err)
	}
	b, err := cfg.blueprint(t)
	if err != nil {
		t.Fatalf("no guest: %v", err)
	}
	var deadline time.Time
	hasDeadline := false
	if d, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		deadline, hasDeadline = d.Deadline()
	}
	limit := cfg.timeout(deadline, hasDeadline)
	// Not t.Context: that ends before the clean-up which may still need the guest.
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, errTimeUp(limit))
	guest, err := testvm.Start(ctx, b)
	if err != nil {
		cancel()
		t.Fatalf("no guest: %v%s", err, remedy(err))
	}
	vm := &VM{t: t, guest: guest, ctx: ctx}
	t.Cleanup(func() {
		defer cancel()
		vm.cleanUp()
	})
	return vm
}

// remedy is what to do about a machine that could not be made.
func remedy(err error) string {
	if errors.Is(err, vmm.ErrKVM) {
		return "; husk doctor says what this host lacks"
	}
	return ""
}

func (vm *VM) cleanUp() {
	if err := vm.guest.Close(); err != nil {
		vm.t.Errorf("end of the guest: %v", err)
	}
	for _, f := range vm.guest.Findings() {
		vm.t.Logf("the guest's kernel has reported (%s): %s", f.Kind, f.Summary)
	}
	if vm.t.Failed() {
		vm.t.Logf("the guest's console:\n%s", lastLines(vm.guest.Console().Lines(), 1000))
	}
}

// VM is the machine: to pause it, to press its power button, for its vsock and its
// figures.
func (vm *VM) VM() *vmm.VM { return vm.guest.VM() }

// Serial is what the guest has said on its serial console so far, as it came; of more
// than 16 MiB, the beginning and the end.
func (vm *VM) Serial() string { return string(vm.guest.Console().Raw()) }

// Send types text on the guest's serial console. A line ends in "\n".
func (vm *VM) Send(text string) {
	vm.t.Helper()
	if err := vm.guest.Send(vm.ctx, text); err != nil {
		vm.t.Fatalf("send %q: %v%s", text, err, vm.tail())
	}
}

// Wait waits until the guest has ended by itself, and says how. The test fails when
// it does not in its time.
func (vm *VM) Wait() *vmm.Result {
	vm.t.Helper()
	result, err := vm.guest.Wait(context.Background()) // it ends with vm.ctx
	switch {
	case err != nil:
		vm.t.Fatalf("the machine failed: %v%s", err, vm.tail())
	case result.Outcome == vmm.Cancelled:
		vm.t.Fatalf("the guest has not ended: %s%s", result.Detail, vm.tail())
	}
	return result
}

// tail is what the kernel has reported of itself, and the end of the console, for
// messages of failures.
func (vm *VM) tail() string {
	var b strings.Builder
	for _, f := range vm.guest.Findings() {
		fmt.Fprintf(&b, "\nthe kernel has reported (%s):\n%s", f.Kind, strings.ToValidUTF8(strings.Join(f.Trace, "\n"), "\uFFFD"))
	}
	lines := vm.guest.Console().Lines()
	if len(lines) == 0 {
		return b.String() + "\nthere was nothing on the guest's console"
	}
	return b.String() + "\nthe end of the guest's console:\n" + lastLines(lines, 20)
}

// lastLines is the last n lines, each with when it came.
func lastLines(lines []console.Line, n int) string {
	var b strings.Builder
	if over := len(lines) - n; over > 0 {
		fmt.Fprintf(&b, "   … %d lines before …\n", over)
		lines = lines[over:]
	}
	for _, l := range lines {
		fmt.Fprintf(&b, "%9.3f  %s\n", l.End.Seconds(), strings.ToValidUTF8(l.Text, "\uFFFD"))
	}
	return b.String()
}
