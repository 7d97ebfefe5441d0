package cpuid

import (
	"fmt"
	"slices"
	"strings"

	"github.com/huskvm/husk/kvm"
)

// needs says what a feature is of no use without: kernels look at the bit of a
// vector unit alone and crash where its registers cannot be enabled. A line is
// a feature and those that need it (Intel SDM vol. 1 §13–15, vol. 2 "CPUID";
// AMD APM vol. 4 §1; the kernel's arch/x86/kernel/cpu/cpuid-deps.c).
var needs = []struct{ feature, users string }{
	{"fxsr", "sse fxsr_opt"},
	{"sse", "sse2"},
	{"sse2", "pni pclmulqdq aes sha_ni gfni"},
	{"pni", "ssse3"},
	{"ssse3", "sse4_1"},
	{"sse4_1", "sse4_2"},
	{"xsave", "xsaveopt xsavec xgetbv1 avx pku mpx lwp"},
	{"xsavec", "xsaves"},
	{"xsaves", "shstk arch_lbr xfd"},
	{"pku", "ospke"},
	{"avx", "f16c fma fma4 xop avx2 vaes vpclmulqdq"},
	{"avx2", "avx_vnni avx_ifma avx512f"},
	{"avx512f", `avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi avx512_vbmi2
		avx512_vnni avx512_bitalg avx512_vpopcntdq avx512_4vnniw avx512_4fmaps avx512_vp2intersect avx512_bf16`},
	{"avx512bw", "avx512_fp16"},
	{"xfd", "amx_tile"},
	{"amx_tile", "amx_bf16 amx_int8 amx_fp16"},
}

// dropUseless takes away what needs a feature that is not there. One that m
// asks for is an error.
func (t *Table) dropUseless(m Model) error {
	for _, n := range needs { // needs is in such an order that one pass will do
		f, _ := lookup(n.feature)
		if t.has(f) {
			continue
		}
		for _, user := range strings.Fields(n.users) {
			u, _ := lookup(user)
			if t.has(u) && slices.ContainsFunc(m.Add, func(name string) bool { return canonical(name) == user }) {
				return fmt.Errorf("%w: feature %q needs %q, which is missing; leave out +%s", ErrFeature, user, n.feature, user)
			}
			t.write(u, false)
		}
	}
	if xsave, _ := lookup("xsave"); !t.has(xsave) {
		t.update(leafXSAVE, func(e *kvm.CPUIDEntry) { e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0 })
	}
	return nil
}
