package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/lab"
	"github.com/huskvm/husk/kvm"
	"github.com/huskvm/husk/kvm/kvmtest"
	"github.com/huskvm/husk/vmm"
)

// newHost is a host with the files given.
func newHost(t *testing.T, files map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return Host{Root: root, Lab: func() (qemu, kernel string, err error) { return "/usr/bin/qemu", "/boot/vmlinuz", nil }}
}

func noLab() (qemu, kernel string, err error) {
	return "", "", fmt.Errorf("%w: QEMU is not there: install it", lab.ErrMissing)
}

func TestHostChecks(t *testing.T) {
	const thp, pages = "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/hugepages/hugepages-2048kB/"
	tests := []struct {
		name   string
		files  map[string]string
		check  func(Host) Check
		status Status
		found  string
		remedy string // "" for none
	}{
		{"thp by request", map[string]string{thp: "always [madvise] never\n"}, Host.hugePages, OK, "madvise", ""},
		{"thp always", map[string]string{thp: "[always] madvise never\n"}, Host.hugePages, OK, "always", ""},
		{"thp off", map[string]string{thp: "always madvise [never]\n"}, Host.hugePages, Note, "are off", "echo madvise"},
		{"no thp", nil, Host.hugePages, Note, "no transparent huge pages", ""},
		{"hugetlb", map[string]string{pages + "nr_hugepages": "8\n", pages + "free_hugepages": "5\n"}, Host.hugetlb, OK, "5 of 8", ""},
		{"hugetlb, none reserved", map[string]string{pages + "nr_hugepages": "0\n"}, Host.hugetlb, Note, "no huge pages are reserved", "nr_hugepages"},
		{"no hugetlb", nil, Host.hugetlb, Note, "no reserved huge pages", ""},
		{"memory", map[string]string{"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    4194304 kB\n"}, Host.memory, OK, "4096 MiB", ""},
		{"little memory", map[string]string{"/proc/meminfo": "MemAvailable:    102400 kB\n"}, Host.memory, Note, "100 MiB", "-m"},
		{"memory unknown", nil, Host.memory, Note, "does not say", ""},
		{"Intel", map[string]string{"/sys/module/kvm_intel/parameters/nested": "Y\n", "/proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vmx sse\n"}, Host.backend, OK, "kvm_intel, VT-x (vmx); guests can have a KVM of their own", ""},
		{"AMD without nesting", map[string]string{"/sys/module/kvm_amd/parameters/nested": "0\n", "/proc/cpuinfo": "flags: svm\n"}, Host.backend, OK, "kvm_amd, AMD-V (svm); guests cannot", ""},
		{"pvm", map[string]string{"/sys/module/kvm_pvm/refcnt": "1\n", "/sys/module/kvm/refcnt": "1\n"}, Host.backend, Note, "kvm_pvm, neither", "the lab"},
		{"no module", map[string]string{"/proc/cpuinfo": "flags: svm\n"}, Host.backend, Note, "no module of KVM's is loaded: AMD-V", "modprobe"},
		{"kernels", map[string]string{"/boot/vmlinuz-6.1.0-9-amd64": "k", "/boot/vmlinuz-6.1.0-56-amd64": "k"}, Host.kernels, OK, "6.1.0-56-amd64, 6.1.0-9-amd64", ""},
		{"no kernels", nil, Host.kernels, Note, "no kernel to boot", "-k"},
		{"lab", nil, Host.lab, OK, "/usr/bin/qemu with kernel /boot/vmlinuz", ""},
		{"no lab", nil, func(h Host) Check { h.Lab = noLab; return h.lab() }, Note, "QEMU is not there", "install it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.check(newHost(t, tt.files))
			require.Equal(t, tt.status, c.Status)
			require.Contains(t, c.Found, tt.found)
			require.Contains(t, c.Remedy, tt.remedy)
			if tt.remedy == "" {
				require.Empty(t, c.Remedy)
			}
		})
	}
}

func TestDevices(t *testing.T) {
	h := newHost(t, map[string]string{"/dev/net/tun": ""})
	require.Equal(t, Check{Name: "tun", Status: OK, Found: "/dev/net/tun opens"}, h.device("tun", "/dev/net/tun", "tap", "modprobe tun"))
	c := h.device("vhost-net", "/dev/vhost-net", "speed", "modprobe vhost_net")
	require.Equal(t, Check{"vhost-net", Note, "/dev/vhost-net is not there (speed)", "sudo modprobe vhost_net"}, c)
}

func TestOpenFailures(t *testing.T) {
	tests := []struct {
		err           error
		found, remedy string
	}{
		{unix.EACCES, "may not open it", "usermod -aG kvm"},
		{unix.EPERM, "may not open it", "--device /dev/kvm"},
		{unix.ENOENT, "does not exist", "modprobe kvm_intel"},
		{unix.ENODEV, "not loaded", "modprobe"},
		{unix.EBUSY, "in use", "VirtualBox"},
		{unix.EIO, "input/output error", "dmesg"},
	}
	for _, tt := range tests {
		found, remedy := openFailure("/dev/kvm", fmt.Errorf("open: %w", tt.err))
		require.Contains(t, found, tt.found)
		require.Contains(t, remedy, tt.remedy)
	}
}

func TestVerdicts(t *testing.T) {
	// Without KVM.
	h := newHost(t, nil)
	r := h.Examine()
	require.Equal(t, InLab, r.Verdict)
	require.Equal(t, Check{"kvm", Bad, filepath.Join(h.Root, "dev/kvm") + " does not exist", r.Checks[0].Remedy}, r.Checks[0])
	require.Nil(t, r.Probe)
	h.Lab = noLab
	require.Equal(t, Nowhere, h.Examine().Verdict)

	// What is no KVM device is not taken for one.
	h = newHost(t, map[string]string{"/dev/kvm": "a plain file"})
	require.Equal(t, InLab, h.Examine().Verdict)
	require.Error(t, CanBoot(h.path("/dev/kvm")))
	require.ErrorContains(t, CanBoot(h.path("/dev/missing")), "does not exist")
}

func TestVerdictsWithKVM(t *testing.T) {
	require.NoError(t, kvmtest.Need(t).Close())
	h := newHost(t, nil)
	h.KVM = "/dev/kvm"
	for _, tt := range []struct {
		probe   Probe
		err     error
		verdict Verdict
	}{
		{Probe{Native: true, InstructionNS: 0.3}, nil, OnKVM},
		{Probe{InstructionNS: 1100, Stuck: "cmpxchg16b"}, nil, InLab},
		{Probe{InstructionNS: 1100}, nil, InLab},
		{Probe{}, errors.New("no vCPU"), InLab},
	} {
		h.Probe = func(*kvm.System) (Probe, error) { return tt.probe, tt.err }
		r := h.Examine()
		require.Equal(t, tt.verdict, r.Verdict)
		require.Len(t, r.Capabilities, len(capabilities))
		for _, c := range r.Capabilities {
			require.Equal(t, c.Needed, slices.ContainsFunc(vmm.NeededCaps(), func(n kvm.Cap) bool { return n.String() == c.Name }), c.Name)
		}
	}
}

func TestWhatMachinesNeed(t *testing.T) {
	explained := map[kvm.Cap]bool{}
	for _, c := range capabilities {
		require.NotEmpty(t, c.use)
		require.False(t, explained[c.cap], "%v is there twice", c.cap)
		explained[c.cap] = true
	}
	require.NotEmpty(t, vmm.NeededCaps())
	for _, lost := range vmm.NeededCaps() {
		require.True(t, explained[lost], "%v is not in the doctor's list", lost)
		require.Equal(t, []kvm.Cap{lost}, missing(func(c kvm.Cap) (int, error) {
			if c == lost {
				return 0, nil
			}
			return 1, nil
		}))
	}
	require.Empty(t, missing(func(kvm.Cap) (int, error) { return 1, nil }))
	require.Equal(t, vmm.NeededCaps(), missing(func(kvm.Cap) (int, error) { return 1, unix.EIO }))
}

func TestReportsAreWritten(t *testing.T) {
	r := &Report{Verdict: Nowhere, Checks: []Check{
		{Name: "kvm", Status: OK, Found: "opens"},
		{"guest ring 0", Bad, "is emulated", "use another host"},
	}}
	var text strings.Builder
	require.NoError(t, r.Write(&text))
	require.Equal(t, "ok    kvm          opens\n"+
		"bad   guest ring 0 is emulated\n"+
		"                   -> use another host\n"+
		"\nhusk boot cannot run here, neither on KVM nor in the lab; the lines above say what to do.\n", text.String())

	b, err := json.Marshal(r)
	require.NoError(t, err)
	require.JSONEq(t, `{"verdict": "none", "checks": [
		{"name": "kvm", "status": "ok", "found": "opens"},
		{"name": "guest ring 0", "status": "bad", "found": "is emulated", "remedy": "use another host"}]}`, string(b))
}

// TestThisHost is that nothing makes the doctor fail, wherever it runs.
func TestThisHost(t *testing.T) {
	r := Host{}.Examine()
	require.NotEmpty(t, r.Checks)
	for _, c := range r.Checks {
		require.NotEmpty(t, c.Name)
		require.NotEmpty(t, c.Found)
		if c.Status == Bad {
			require.NotEmpty(t, c.Remedy, c.Name)
		}
	}
}
