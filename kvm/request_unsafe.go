package kvm

import (
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

// A request is one ioctl of the KVM API. The size of its argument is part of
// its number.
type request struct {
	name string
	num  uintptr
}

// The requests of the three kinds of file: system, VM and vCPU.
var (
	reqGetAPIVersion          = request{"KVM_GET_API_VERSION", kvm.IIO(0x00)}
	reqCreateVM               = request{"KVM_CREATE_VM", kvm.IIO(0x01)}
	reqGetMSRIndexList        = request{"KVM_GET_MSR_INDEX_LIST", kvm.IIOWR(0x02, unsafe.Sizeof(msrListHeader{}))}
	reqCheckExtension         = request{"KVM_CHECK_EXTENSION", kvm.IIO(0x03)}
	reqGetVCPUMmapSize        = request{"KVM_GET_VCPU_MMAP_SIZE", kvm.IIO(0x04)}
	reqGetSupportedCPUID      = request{"KVM_GET_SUPPORTED_CPUID", kvm.IIOWR(0x05, unsafe.Sizeof(listHeader{}))}
	reqGetEmulatedCPUID       = request{"KVM_GET_EMULATED_CPUID", kvm.IIOWR(0x09, unsafe.Sizeof(listHeader{}))}
	reqGetMSRFeatureIndexList = request{"KVM_GET_MSR_FEATURE_INDEX_LIST", kvm.IIOWR(0x0a, unsafe.Sizeof(msrListHeader{}))}

	reqCreateVCPU          = request{"KVM_CREATE_VCPU", kvm.IIO(0x41)}
	reqGetDirtyLog         = request{"KVM_GET_DIRTY_LOG", kvm.IIOW(0x42, unsafe.Sizeof(dirtyLog{}))}
	reqSetUserMemoryRegion = request{"KVM_SET_USER_MEMORY_REGION", kvm.IIOW(0x46, unsafe.Sizeof(UserspaceMemoryRegion{}))}
	reqSetTSSAddr          = request{"KVM_SET_TSS_ADDR", kvm.IIO(0x47)}
	reqSetIdentityMapAddr  = request{"KVM_SET_IDENTITY_MAP_ADDR", kvm.IIOW(0x48, unsafe.Sizeof(uint64(0)))}
	reqCreateIRQChip       = request{"KVM_CREATE_IRQCHIP", kvm.IIO(0x60)}
	reqIRQLine             = request{"KVM_IRQ_LINE", kvm.IIOW(0x61, unsafe.Sizeof(irqLevel{}))}
	reqGetIRQChip          = request{"KVM_GET_IRQCHIP", kvm.IIOWR(0x62, unsafe.Sizeof(IRQChip{}))}
	reqSetIRQChip          = request{"KVM_SET_IRQCHIP", kvm.IIOR(0x63, unsafe.Sizeof(IRQChip{}))} // the header says R
	reqRegisterCoalesced   = request{"KVM_REGISTER_COALESCED_MMIO", kvm.IIOW(0x67, unsafe.Sizeof(coalescedZone{}))}
	reqUnregisterCoalesced = request{"KVM_UNREGISTER_COALESCED_MMIO", kvm.IIOW(0x68, unsafe.Sizeof(coalescedZone{}))}
	reqSetGSIRouting       = request{"KVM_SET_GSI_ROUTING", kvm.IIOW(0x6a, unsafe.Sizeof(listHeader{}))}
	reqIRQFD               = request{"KVM_IRQFD", kvm.IIOW(0x76, unsafe.Sizeof(irqfd{}))}
	reqCreatePIT2          = request{"KVM_CREATE_PIT2", kvm.IIOW(0x77, unsafe.Sizeof(pitConfig{}))}
	reqSetBootCPUID        = request{"KVM_SET_BOOT_CPU_ID", kvm.IIO(0x78)}
	reqIOEventFD           = request{"KVM_IOEVENTFD", kvm.IIOW(0x79, unsafe.Sizeof(ioeventfd{}))}
	reqSetClock            = request{"KVM_SET_CLOCK", kvm.IIOW(0x7b, unsafe.Sizeof(ClockData{}))}
	reqGetClock            = request{"KVM_GET_CLOCK", kvm.IIOR(0x7c, unsafe.Sizeof(ClockData{}))}
	reqGetPIT2             = request{"KVM_GET_PIT2", kvm.IIOR(0x9f, unsafe.Sizeof(PITState2{}))}
	reqSetPIT2             = request{"KVM_SET_PIT2", kvm.IIOW(0xa0, unsafe.Sizeof(PITState2{}))}
	reqSignalMSI           = request{"KVM_SIGNAL_MSI", kvm.IIOW(0xa5, unsafe.Sizeof(msi{}))}
	reqClearDirtyLog       = request{"KVM_CLEAR_DIRTY_LOG", kvm.IIOWR(0xc0, unsafe.Sizeof(clearDirtyLog{}))}

	reqRun           = request{"KVM_RUN", kvm.IIO(0x80)}
	reqGetRegs       = request{"KVM_GET_REGS", kvm.IIOR(0x81, unsafe.Sizeof(Regs{}))}
	reqSetRegs       = request{"KVM_SET_REGS", kvm.IIOW(0x82, unsafe.Sizeof(Regs{}))}
	reqGetSregs      = request{"KVM_GET_SREGS", kvm.IIOR(0x83, unsafe.Sizeof(Sregs{}))}
	reqSetSregs      = request{"KVM_SET_SREGS", kvm.IIOW(0x84, unsafe.Sizeof(Sregs{}))}
	reqTranslate     = request{"KVM_TRANSLATE", kvm.IIOWR(0x85, unsafe.Sizeof(Translation{}))}
	reqInterrupt     = request{"KVM_INTERRUPT", kvm.IIOW(0x86, unsafe.Sizeof(uint32(0)))}
	reqGetMSRs       = request{"KVM_GET_MSRS", kvm.IIOWR(0x88, unsafe.Sizeof(listHeader{}))}
	reqSetMSRs       = request{"KVM_SET_MSRS", kvm.IIOW(0x89, unsafe.Sizeof(listHeader{}))}
	reqSetSignalMask = request{"KVM_SET_SIGNAL_MASK", kvm.IIOW(0x8b, unsafe.Offsetof(signalMask{}.set))}
	reqGetFPU        = request{"KVM_GET_FPU", kvm.IIOR(0x8c, unsafe.Sizeof(FPU{}))}
	reqSetFPU        = request{"KVM_SET_FPU", kvm.IIOW(0x8d, unsafe.Sizeof(FPU{}))}
	reqGetLAPIC      = request{"KVM_GET_LAPIC", kvm.IIOR(0x8e, unsafe.Sizeof(LAPICState{}))}
	reqSetLAPIC      = request{"KVM_SET_LAPIC", kvm.IIOW(0x8f, unsafe.Sizeof(LAPICState{}))}
	reqSetCPUID2     = request{"KVM_SET_CPUID2", kvm.IIOW(0x90, unsafe.Sizeof(listHeader{}))}
	reqGetCPUID2     = request{"KVM_GET_CPUID2", kvm.IIOWR(0x91, unsafe.Sizeof(listHeader{}))}
	reqGetMPState    = request{"KVM_GET_MP_STATE", kvm.IIOR(0x98, unsafe.Sizeof(MPState{}))}
	reqSetMPState    = request{"KVM_SET_MP_STATE", kvm.IIOW(0x99, unsafe.Sizeof(MPState{}))}
	reqNMI           = request{"KVM_NMI", kvm.IIO(0x9a)}
	reqSetGuestDebug = request{"KVM_SET_GUEST_DEBUG", kvm.IIOW(0x9b, unsafe.Sizeof(GuestDebug{}))}
	reqGetVCPUEvents = request{"KVM_GET_VCPU_EVENTS", kvm.IIOR(0x9f, unsafe.Sizeof(VCPUEvents{}))}
	reqSetVCPUEvents = request{"KVM_SET_VCPU_EVENTS", kvm.IIOW(0xa0, unsafe.Sizeof(VCPUEvents{}))}
	reqGetDebugRegs  = request{"KVM_GET_DEBUGREGS", kvm.IIOR(0xa1, unsafe.Sizeof(DebugRegs{}))}
	reqSetDebugRegs  = request{"KVM_SET_DEBUGREGS", kvm.IIOW(0xa2, unsafe.Sizeof(DebugRegs{}))}
	reqSetTSCKHz     = request{"KVM_SET_TSC_KHZ", kvm.IIO(0xa2)}
	reqGetTSCKHz     = request{"KVM_GET_TSC_KHZ", kvm.IIO(0xa3)}
	reqEnableCap     = request{"KVM_ENABLE_CAP", kvm.IIOW(0xa3, unsafe.Sizeof(enableCap{}))}
	reqGetXSave      = request{"KVM_GET_XSAVE", kvm.IIOR(0xa4, xsaveSize)}
	reqSetXSave      = request{"KVM_SET_XSAVE", kvm.IIOW(0xa5, xsaveSize)}
	reqGetXCRS       = request{"KVM_GET_XCRS", kvm.IIOR(0xa6, unsafe.Sizeof(XCRS{}))}
	reqSetXCRS       = request{"KVM_SET_XCRS", kvm.IIOW(0xa7, unsafe.Sizeof(XCRS{}))}
	reqKVMClockCtrl  = request{"KVM_KVMCLOCK_CTRL", kvm.IIO(0xad)}
	reqGetStatsFD    = request{"KVM_GET_STATS_FD", kvm.IIO(0xce)}
	reqGetXSave2     = request{"KVM_GET_XSAVE2", kvm.IIOR(0xcf, xsaveSize)}
)

// ioctl issues r with a number as its argument. It tries again after a signal:
// of all requests only KVM_RUN has a use for EINTR, and that does not come here.
func ioctl(fd int, r request, arg uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), r.num, arg)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return -1, &Error{Op: r.name, Err: errno}
		}
	}
}

// ioctlPtr issues r with a structure as its argument. The conversion to uintptr
// stands in the call itself: only there does Go promise not to move arg.
func ioctlPtr[T any](fd int, r request, arg *T) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), r.num, uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return -1, &Error{Op: r.name, Err: errno}
		}
	}
}

// get issues r, which fills a T.
func get[T any](fd int, r request) (T, error) {
	var t T
	_, err := ioctlPtr(fd, r, &t)
	return t, err
}

// set issues r, which reads a T and returns nothing.
func set[T any](fd int, r request, t *T) error {
	_, err := ioctlPtr(fd, r, t)
	return err
}

// newList returns memory for a structure that ends in an array: its header H and
// the n elements E that follow it without a gap. Neither may hold pointers.
func newList[H, E any](n int) (*H, []E) {
	// uint64 elements give the alignment that the widest field needs. One more
	// E than asked for keeps the elements' address inside the memory when n is 0.
	size := unsafe.Sizeof(*new(H)) + uintptr(n+1)*unsafe.Sizeof(*new(E))
	mem := make([]uint64, (size+7)/8)
	p := unsafe.Pointer(unsafe.SliceData(mem))
	return (*H)(p), unsafe.Slice((*E)(unsafe.Add(p, unsafe.Sizeof(*new(H)))), n)
}
