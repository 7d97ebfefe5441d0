package kvm

import "github.com/bobuhiro11/gokvm/kvm"

// ClockData is struct kvm_clock_data: the time of kvmclock in ns, and what it
// was read together with (KVM API §4.29).
type ClockData = kvm.ClockData

// The flags of ClockData.
const (
	ClockTSCStable uint32 = 1 << 1 // KVM_CLOCK_TSC_STABLE: all vCPUs read the same clock
	ClockRealtime  uint32 = 1 << 2 // KVM_CLOCK_REALTIME: Realtime is valid, ns since 1970
	ClockHostTSC   uint32 = 1 << 3 // KVM_CLOCK_HOST_TSC: HostTSC is valid
)

// Clock reads kvmclock as the guest would (KVM API §4.29).
func (v *VM) Clock() (ClockData, error) {
	return get[ClockData](v.fd, reqGetClock)
}

// SetClock sets kvmclock (KVM API §4.30). Of Clock's flags it takes ClockRealtime
// alone, which adds the time that has passed since Realtime.
func (v *VM) SetClock(c *ClockData) error {
	return set(v.fd, reqSetClock, c)
}

// SetTSCKHz sets the frequency in kHz that vCPUs to come get (KVM API §4.55). It
// needs CapVMTSCControl.
func (v *VM) SetTSCKHz(khz int) error {
	_, err := ioctl(v.fd, reqSetTSCKHz, uintptr(khz))
	return detail(err, "%d", khz)
}

// TSCKHz returns the frequency in kHz of the vCPU's time stamp counter (KVM API §4.56).
func (c *VCPU) TSCKHz() (int, error) {
	return ioctl(c.fd, reqGetTSCKHz, 0)
}

// SetTSCKHz sets it, where the host can scale (KVM API §4.55). It needs
// CapTSCControl to differ from the host's.
func (c *VCPU) SetTSCKHz(khz int) error {
	_, err := ioctl(c.fd, reqSetTSCKHz, uintptr(khz))
	return detail(err, "%d", khz)
}

// KVMClockCtrl tells the guest that it was paused, so that its watchdogs do not
// bark (KVM API §4.70). Without kvmclock in the guest it fails with EINVAL.
func (c *VCPU) KVMClockCtrl() error {
	_, err := ioctl(c.fd, reqKVMClockCtrl, 0)
	return err
}
