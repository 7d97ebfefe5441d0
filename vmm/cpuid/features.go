package cpuid

// A feature is one bit of one leaf.
type feature struct {
	leaf, index uint32
	reg         register
	bit         uint
}

type register int

const (
	eax register = iota
	ebx
	ecx
	edx
)

// features has a word for each bit, from bit 0 up, "." where a bit has no name
// in /proc/cpuinfo (the kernel's arch/x86/include/asm/cpufeatures.h) or is not
// a feature.
var features = []struct {
	leaf, index uint32
	reg         register
	names       string
}{
	{0x1, 0, edx, `fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov
		pat pse36 pn clflush . dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe`},
	{0x1, 0, ecx, `pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm
		. pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor`},
	{0x7, 0, ebx, `fsgsbase tsc_adjust sgx bmi1 hle avx2 . smep bmi2 erms invpcid rtm cqm . mpx rdt_a
		avx512f avx512dq rdseed adx smap avx512ifma . clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl`},
	{0x7, 0, ecx, `. avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq .
		la57 . . . . . rdpid . bus_lock_detect cldemote . movdiri movdir64b enqcmd sgx_lc pks`},
	{0x7, 0, edx, `. . avx512_4vnniw avx512_4fmaps fsrm . . . avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort . tsx_force_abort serialize hybrid_cpu
		tsxldtrk . pconfig arch_lbr ibt . amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl stibp flush_l1d arch_capabilities core_capabilities ssbd`},
	{0x7, 1, eax, `. . . . avx_vnni avx512_bf16 . cmpccxadd . . fzrm fsrs fsrc . . .
		. . . . . amx_fp16 . avx_ifma . . lam`},
	{0xd, 1, eax, `xsaveopt xsavec xgetbv1 xsaves xfd`},
	{0x8000_0001, 0, ecx, `lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt . lwp
		fma4 tce . nodeid_msr . tbm topoext perfctr_core perfctr_nb . bpext ptsc perfctr_llc mwaitx`},
	{0x8000_0001, 0, edx, `. . . . . . . . . . . syscall . . . .
		. . . mp nx . mmxext . . fxsr_opt pdpe1gb rdtscp . lm 3dnowext 3dnow`},
	{0x8000_0007, 0, edx, `. . . . . . . . nonstop_tsc`},
	{0x8000_0008, 0, ebx, `clzero irperf xsaveerptr . rdpru . . . . wbnoinvd . . ibpb . ibrs amd_stibp
		ibrs_always_on stibp_always_on . . . . . amd_ppin amd_ssbd virt_ssbd amd_ssb_no cppc . amd_psfd btc_no`},
	{0x8000_000a, 0, edx, `npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists . . pausefilter . pfthreshold avic . v_vmsave_vmload
		vgif`},
	{0x4000_0001, 0, eax, `kvmclock kvm_nopiodelay kvm_mmu kvmclock2 kvm_asyncpf kvm_steal_time kvm_pv_eoi kvm_pv_unhalt . kvm_pv_tlb_flush kvm_asyncpf_vmexit kvm_pv_ipi kvm_poll_control kvm_pv_sched_yield kvm_asyncpf_int kvm_msi_ext_dest_id
		. . . . . . . . kvmclock_stable_bit`},
}

// aliases are QEMU's names where they are not the kernel's.
var aliases = map[string]string{
	"invtsc": "nonstop_tsc", "tsc_deadline": "tsc_deadline_timer",
	"sse3": "pni", "sha": "sha_ni",
	"rdt": "rdt_a", "cmpxchg16b": "cx16", "cmpxchg8b": "cx8",
}
