package cpuid

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/huskvm/husk/kvm"
)

// ErrFeature is a processor model or feature that cannot be had.
var ErrFeature = errors.New("processor model")

// A Model is a processor: a base, with features added and removed by the names
// of /proc/cpuinfo (QEMU's spelling, with dashes, is understood too).
type Model struct {
	Base        string // "host", "max-migratable", or "" for host
	Add, Remove []string
}

// Bases are the models to start from.
var Bases = []string{"host", "max-migratable"}

// Check reports what is wrong with m on every host: an unknown base or feature.
func (m Model) Check() error {
	if m.Base != "" && !slices.Contains(Bases, m.Base) {
		return fmt.Errorf("%w: %q is unknown; use one of: %s", ErrFeature, m.Base, strings.Join(Bases, ", "))
	}
	for _, name := range slices.Concat(m.Add, m.Remove) {
		if _, ok := lookup(name); !ok {
			return fmt.Errorf("%w: feature %q is unknown; features have the names of /proc/cpuinfo%s", ErrFeature, name, similar(name))
		}
		if slices.Contains(m.Add, name) && slices.Contains(m.Remove, name) {
			return fmt.Errorf("%w: feature %q is both added and removed", ErrFeature, name)
		}
	}
	return nil
}

// apply makes t, which is all that KVM supports, into m.
func (t *Table) apply(m Model) error {
	if err := m.Check(); err != nil {
		return err
	}
	supported := slices.Clone(t.entries)
	if m.Base == "max-migratable" {
		// A guest that moves finds another TSC rate, other counters and another
		// enclave key.
		for _, name := range []string{"nonstop_tsc", "sgx", "intel_pt", "arch_lbr"} {
			f, _ := lookup(name)
			t.write(f, false)
		}
		for _, leaf := range []uint32{leafPMU, leafSGX, leafTrace} {
			t.update(leaf, func(e *kvm.CPUIDEntry) { e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0 })
		}
	}
	for _, name := range m.Add {
		f, _ := lookup(name)
		if !(&Table{entries: supported}).has(f) {
			return fmt.Errorf("%w: KVM does not support feature %q on this host; leave out +%s", ErrFeature, name, name)
		}
		t.write(f, true)
	}
	for _, name := range m.Remove {
		f, _ := lookup(name)
		t.write(f, false)
	}
	return t.dropUseless(m)
}

func (t *Table) has(f feature) bool {
	e := t.find(f.leaf, f.index)
	return e != nil && *f.register(e)>>f.bit&1 == 1
}

func (t *Table) write(f feature, on bool) {
	if e := t.find(f.leaf, f.index); e != nil {
		setBit(f.register(e), int(f.bit), on)
	}
}

func (f feature) register(e *kvm.CPUIDEntry) *uint32 {
	return [...]*uint32{&e.EAX, &e.EBX, &e.ECX, &e.EDX}[f.reg]
}

// canonical is a feature's name as the kernel writes it.
func canonical(name string) string {
	name = strings.NewReplacer("-", "_", ".", "_").Replace(strings.ToLower(name))
	if n, ok := aliases[name]; ok {
		return n
	}
	return name
}

// lookup finds a feature by name.
func lookup(name string) (feature, bool) {
	want := canonical(name)
	for _, g := range features {
		for bit, n := range strings.Fields(g.names) {
			if n == want && n != "." {
				return feature{g.leaf, g.index, g.reg, uint(bit)}, true
			}
		}
	}
	return feature{}, false
}

// similar suggests names for a mistyped one.
func similar(name string) string {
	want := strings.ReplaceAll(canonical(name), "_", "")
	var found []string
	for _, g := range features {
		for _, n := range strings.Fields(g.names) {
			plain := strings.ReplaceAll(n, "_", "")
			if n != "." && want != "" && strings.HasPrefix(plain, want) {
				found = append(found, n)
			}
		}
	}
	if len(found) == 0 || len(found) > 6 {
		return ""
	}
	return "; did you mean " + strings.Join(found, ", ") + "?"
}
