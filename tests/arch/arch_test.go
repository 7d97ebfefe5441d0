// Package arch checks who imports whom.
package arch

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/huskvm/husk/"

// imports is every package of ours with all of ours that it depends on,
// directly or not, without the module's prefix.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Deps " "}}`, module+"...").Output()
	require.NoError(t, err)
	all := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], module)
		all[pkg] = nil
		for _, dep := range words[1:] {
			if rest, ours := strings.CutPrefix(dep, module); ours {
				all[pkg] = append(all[pkg], rest)
			}
		}
	}
	require.Contains(t, all, "kvm")
	require.Contains(t, all["vmm"], "kvm", "the check must see real imports")
	return all
}

// under tells whether pkg is one of the folders, or in one.
func under(pkg string, folders ...string) bool {
	for _, f := range folders {
		if pkg == f || strings.HasPrefix(pkg, f+"/") {
			return true
		}
	}
	return false
}

func TestWhoImportsWhom(t *testing.T) {
	for pkg, deps := range imports(t) {
		for _, dep := range deps {
			allowed := true
			switch {
			case under(pkg, "kvm/kvmtest"):
				allowed = dep == "kvm"
			case under(pkg, "kvm", "vmm/memory"):
				allowed = false
			case under(pkg, "firmware"):
				allowed = under(dep, "firmware")
			case under(pkg, "boot"):
				// What a loader hands to a kernel has its form in firmware.
				allowed = under(dep, "boot", "firmware/e820", "firmware/pvh")
			case under(pkg, "devices"):
				allowed = under(dep, "devices")
			case under(pkg, "vmm/vmmtest"):
				// What cmd/husk is to the shell, it is to go test.
				allowed = !under(dep, "cmd")
			case under(pkg, "vmm"):
				allowed = under(dep, "vmm", "kvm", "devices", "boot", "firmware")
			case under(pkg, "cmd/husk-init"):
				allowed = !under(dep, "vmm", "kvm", "devices", "firmware")
			}
			require.True(t, allowed, "%s must not depend on %s", pkg, dep)
		}
	}
}

// TestKVMIsForTheMachineAndTheDoctor: whoever else wants KVM goes through vmm.
func TestKVMIsForTheMachineAndTheDoctor(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	require.NoError(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], module)
		for _, dep := range words[1:] {
			if dep == module+"kvm" {
				require.True(t, under(pkg, "vmm", "kvm/kvmtest", "internal/doctor"), "%s imports kvm", pkg)
			}
		}
	}
}

// TestChipsDoNotKnowEachOther: a chip is found by its folder, and stands alone.
// virtio, the disk formats and the networks are families of packages.
func TestChipsDoNotKnowEachOther(t *testing.T) {
	for pkg, deps := range imports(t) {
		if !under(pkg, "devices") || under(pkg, "devices/virtio", "devices/disk", "devices/netdev") {
			continue
		}
		for _, dep := range deps {
			require.Contains(t, []string{"devices", "devices/iovec"}, dep, "%s depends on it", pkg)
		}
	}
}

// TestCardsDoNotKnowTheirCables: a virtio device declares what it needs of a
// backend, and a backend knows nothing of virtio.
func TestCardsDoNotKnowTheirCables(t *testing.T) {
	backends := []string{"devices/disk", "devices/netdev", "devices/share"}
	for pkg, deps := range imports(t) {
		for _, dep := range deps {
			require.False(t, under(pkg, "devices/virtio") && under(dep, backends...), "%s depends on %s", pkg, dep)
			require.False(t, under(pkg, backends...) && under(dep, "devices/virtio"), "%s depends on %s", pkg, dep)
		}
	}
}
