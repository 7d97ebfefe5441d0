package kvm

import (
	"errors"

	"golang.org/x/sys/unix"
)

// msrListHeader starts struct kvm_msr_list.
type msrListHeader struct {
	n uint32
}

// An MSR is struct kvm_msr_entry: a model specific register and its value.
type MSR struct {
	Index uint32
	_     uint32
	Data  uint64
}

// MSRList returns the indices of the guest's MSRs that are to be saved and
// restored (KVM API §4.3).
func (s *System) MSRList() ([]uint32, error) {
	return msrIndices(s.fd, reqGetMSRIndexList)
}

// FeatureMSRList returns the indices of MSRs that describe what the processor
// can do (KVM API §4.3). It needs CapGetMSRFeatures.
func (s *System) FeatureMSRList() ([]uint32, error) {
	return msrIndices(s.fd, reqGetMSRFeatureIndexList)
}

// msrIndices asks for the number of indices first, by giving too little room.
func msrIndices(fd int, r request) ([]uint32, error) {
	var none msrListHeader
	if err := set(fd, r, &none); err != nil && !errors.Is(err, unix.E2BIG) {
		return nil, err
	}
	head, indices := newList[msrListHeader, uint32](int(none.n))
	head.n = none.n
	if err := set(fd, r, head); err != nil {
		return nil, err
	}
	return indices[:min(head.n, none.n)], nil
}

// FeatureMSRs reads MSRs of FeatureMSRList in place (KVM API §4.18). The error
// is an *MSRError when KVM does not know one.
func (s *System) FeatureMSRs(msrs []MSR) error {
	return transferMSRs(s.fd, reqGetMSRs, msrs)
}

// MSRs reads the registers named by Index in place (KVM API §4.18). The error is
// an *MSRError when KVM refuses one.
func (c *VCPU) MSRs(msrs []MSR) error {
	return transferMSRs(c.fd, reqGetMSRs, msrs)
}

// SetMSRs writes registers in order (KVM API §4.19). The error is an *MSRError
// when KVM refuses one.
func (c *VCPU) SetMSRs(msrs []MSR) error {
	return transferMSRs(c.fd, reqSetMSRs, msrs)
}

// transferMSRs checks the count that KVM returns: it stops at the first MSR that
// it does not like, and calls that success.
func transferMSRs(fd int, r request, msrs []MSR) error {
	head, entries := newList[listHeader, MSR](len(msrs))
	head.n = uint32(len(msrs))
	copy(entries, msrs)
	done, err := ioctlPtr(fd, r, head)
	if err != nil {
		return detail(err, "%d MSRs", len(msrs))
	}
	done = min(done, len(msrs))
	copy(msrs, entries[:done])
	if done < len(msrs) {
		m := msrs[done]
		return &MSRError{Op: r.name, Index: m.Index, Data: m.Data, Done: done, Count: len(msrs)}
	}
	return nil
}
