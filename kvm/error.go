package kvm

import (
	"errors"
	"fmt"
)

// ErrMSR says that KVM took fewer MSRs than it was given. The error that
// carries it is an *MSRError.
var ErrMSR = errors.New("KVM refused an MSR")

// ErrExit says that the kernel described an exit in a way that the KVM API does
// not allow: data outside the shared page, or an impossible size.
var ErrExit = errors.New("malformed exit from KVM")

// An Error is a request that KVM refused.
type Error struct {
	Op     string // the request's name in the KVM API: "KVM_CREATE_VM"
	Detail string // what it was asked for, may be empty
	Err    error  // most often a unix.Errno
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Detail, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// detail says in err what the request was about. The text is made only when
// there is an error to put it in.
func detail(err error, format string, args ...any) error {
	var e *Error
	if errors.As(err, &e) {
		e.Detail = fmt.Sprintf(format, args...)
	}
	return err
}

// unsupported is the error of a request that this KVM lacks. errors.Is finds
// errors.ErrUnsupported in it.
func unsupported(r request, c Cap) error {
	return &Error{Op: r.name, Err: fmt.Errorf("%w: this kernel's KVM has no %s", errors.ErrUnsupported, c)}
}

// An MSRError names the MSR that ended KVM_GET_MSRS or KVM_SET_MSRS. Those
// before it were handled, those after it were not looked at.
type MSRError struct {
	Op    string // "KVM_GET_MSRS" or "KVM_SET_MSRS"
	Index uint32 // of the MSR
	Data  uint64 // the value it was to get, for KVM_SET_MSRS
	Done  int    // how many MSRs came before it
	Count int    // how many MSRs were asked for
}

func (e *MSRError) Error() string {
	return fmt.Sprintf("%s: %v: %#x (value %#x, number %d of %d)", e.Op, ErrMSR, e.Index, e.Data, e.Done+1, e.Count)
}

// Unwrap returns ErrMSR.
func (e *MSRError) Unwrap() error { return ErrMSR }
