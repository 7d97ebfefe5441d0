package process

import (
	"github.com/huskvm/husk/internal/kstack"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/vmm"
)

// A Kernel names places in a guest's kernel; *kstack.Kernel is one.
type Kernel interface {
	Describe(dumps []vmm.Dump, mem kstack.Memory) ([]kstack.Place, error)
}

// describe says where processors are. Without a kernel's symbols, their registers
// still tell something; the error is then why there are none.
func (s *server) describe(dumps []vmm.Dump, mem kstack.Memory) ([]result.VCPU, error) {
	vcpus := make([]result.VCPU, len(dumps))
	for i := range dumps {
		d := &dumps[i]
		vcpus[i] = result.VCPU{CPU: d.CPU, RIP: d.Regs.RIP, Registers: d.String()}
	}
	kernel, err := s.openKernel()
	if err != nil {
		return vcpus, err
	}
	places, err := kernel.Describe(dumps, mem)
	for i, p := range places {
		vcpus[i].Symbol, vcpus[i].Backtrace = p.Symbol, p.Backtrace
	}
	return vcpus, err
}
