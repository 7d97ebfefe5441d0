package vmmtest

import (
	"context"
	"regexp"

	"github.com/huskvm/husk/internal/smoke/console"
)

// Expect waits until the guest's serial console has a match of a regular expression,
// behind what the last Expect has found, and returns the match and what its
// parentheses have. "^" and "$" are those of a line; what steers a terminal is not
// seen. The test fails when the guest ends or its kernel panics first, at once, and
// when the guest's time is up: the message has the end of the console, and all that
// the kernel said of its panic.
func (vm *VM) Expect(expr string) []string {
	vm.t.Helper()
	re, err := regexp.Compile(expr)
	if err != nil {
		vm.t.Fatalf("expect: %v", err)
	}
	found, err := vm.ExpectContext(vm.ctx, re)
	if err != nil {
		vm.t.Fatalf("expect %v%s", err, vm.tail())
	}
	return found
}

// ExpectContext is Expect that returns what went wrong, and that ends with ctx.
func (vm *VM) ExpectContext(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	p, err := console.Regexp(re)
	if err != nil {
		return nil, err
	}
	m, err := vm.guest.Expect(ctx, p)
	if err != nil {
		return nil, err
	}
	return append([]string{m.Text}, m.Groups...), nil
}
