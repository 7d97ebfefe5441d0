package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
		ok     bool
	}{
		{nil, 0, false},
		{[]float64{7}, 7, true},
		{[]float64{9, 1, 5}, 5, true},
		{[]float64{4, 1, 9, 2}, 3, true},
	} {
		got, ok := median(tt.values)
		require.Equal(t, tt.ok, ok)
		require.Equal(t, tt.want, got)
	}
	values := []float64{3, 1, 2}
	_, _ = median(values)
	require.Equal(t, []float64{3, 1, 2}, values, "the samples stay in their order")
}

func TestReasonNames(t *testing.T) {
	for _, tt := range []struct {
		isa, reason uint64
		want        string
	}{
		{isaSVM, 0x60, reasonInterrupt},
		{isaSVM, 0x7b, "port I/O"},
		{isaSVM, 0x400, "page fault"},
		{isaSVM, 0x04, "CR read"},
		{isaSVM, 0x14, "CR write"},
		{isaSVM, 0x31, "DR write"},
		{isaSVM, 0x5f, "exception"},
		{isaSVM, 0xffffffff, "0xffffffff"},
		{isaVMX, 30, "port I/O"},
		{isaVMX, 48, "page fault"},
		{isaVMX, 0x80000000 | 33, "0x21"},
		{3, 1, "0x1"},
	} {
		require.Equal(t, tt.want, reasonName(tt.isa, tt.reason))
	}
}

func TestCPUIDNames(t *testing.T) {
	require.Equal(t, "0x40000000", cpuidName(0x40000000))
	require.Equal(t, "0x40000010", cpuidName(0x40000010))
	require.Equal(t, "search for a hypervisor", cpuidName(0x40000100))
	require.Equal(t, "search for a hypervisor", cpuidName(0x4000ff00))
	require.Equal(t, "0x80000000", cpuidName(0x80000000))
}

const smaps = `55d0c0000000-55d0c0100000 r-xp 00000000 08:01 42  /usr/bin/a: b
Size:               1024 kB
Rss:                 800 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
Rss:              100000 kB
7f1000000000-7f1040000000 ---p 00000000 00:00 0
Rss:                   0 kB
7f2000000000-7f2000010000 rw-p 00000000 00:00 0  [heap]
Rss:                  24 kB
`

func TestMemory(t *testing.T) {
	got, err := sumMemory(strings.NewReader(smaps), 256<<20)
	require.NoError(t, err)
	require.Equal(t, memory{Guest: 100000 << 10, Monitor: 824 << 10}, got)

	_, err = sumMemory(strings.NewReader(smaps), 512<<20)
	require.ErrorContains(t, err, "guest's RAM", "no mapping is that large")
	_, err = sumMemory(strings.NewReader("no smaps at all here\n"), 1)
	require.Error(t, err)
}

// TestMemoryOfThisProcess reads a real smaps file.
func TestMemoryOfThisProcess(t *testing.T) {
	f, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer f.Close()
	got, err := sumMemory(f, 4096)
	require.NoError(t, err)
	require.NotZero(t, got.Guest)
	require.NotZero(t, got.Monitor)
}

func TestAwaitMarker(t *testing.T) {
	for _, console := range []string{"INIT\r\n", "qboot\r\n[    0.1] Linux\r\nINIT\n", "\x1b[2J\x1bcINIT\r\n"} {
		require.NoError(t, awaitMarker(strings.NewReader(console)), "%q", console)
	}
	for _, console := range []string{"", "INIT", "[    0.9] Run /init as INIT process\n", "INITIAL\n"} {
		err := awaitMarker(strings.NewReader(console))
		require.ErrorContains(t, err, "it ended", "%q", console)
	}
	err := awaitMarker(io.MultiReader(strings.NewReader("the last words"), broken{}))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorContains(t, err, "the last words")
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func TestMonitors(t *testing.T) {
	programs := map[string]string{}
	for _, c := range commands {
		programs[c.flag] = "/bin/true"
	}
	p := payload{Kernel: "/k/vmlinuz", Vmlinux: "/k/vmlinux", Initrd: "/k/initrd"}
	dir := t.TempDir()
	all, err := monitors(programs, p, dir)
	require.NoError(t, err)
	require.Len(t, all, 8)
	names := map[string]bool{}
	for _, m := range all {
		names[m.Name] = true
		require.Equal(t, "/bin/true", m.Argv[0])
	}
	require.True(t, names[nameHusk] && names[nameReference], "the verdict is about them")

	b, err := os.ReadFile(filepath.Join(dir, "firecracker.json"))
	require.NoError(t, err)
	var config struct {
		Boot struct {
			Kernel string `json:"kernel_image_path"`
			Args   string `json:"boot_args"`
		} `json:"boot-source"`
	}
	require.NoError(t, json.Unmarshal(b, &config))
	require.Equal(t, p.Vmlinux, config.Boot.Kernel)
	require.Equal(t, commandLine, config.Boot.Args)

	p.Vmlinux = ""
	some, err := monitors(programs, p, t.TempDir())
	require.NoError(t, err)
	require.Len(t, some, 5, "those that boot an ELF kernel are left out")
	none, err := monitors(nil, p, t.TempDir())
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestChosen(t *testing.T) {
	all := func() []monitor { return []monitor{{Name: nameHusk}, {Name: "QEMU q35"}, {Name: nameReference}} }
	require.Equal(t, all(), chosen(all(), nil))
	require.Equal(t, []monitor{{Name: nameHusk}, {Name: nameReference}}, chosen(all(), []string{"husk", "MICROVM"}))
	require.Empty(t, chosen(all(), []string{"bochs"}))
}

// traced is a sample with as many exits of each kind as given.
func traced(name string, seconds float64, mib, io, interrupts, deadline uint64) sample {
	b := newBreakdown()
	b.Exits["port I/O"], b.Exits[reasonInterrupt], b.Exits["MSR"] = io, interrupts, deadline+1
	b.MSR[msrName(msrDeadline, 1)], b.MSR["0x1b read"] = deadline, 1
	b.PIO["0x3f8 out"] = io
	return sample{
		Monitor: name, Round: 1, SecondsToInit: seconds, Memory: &memory{Guest: 1, Monitor: mib << 20},
		KVM: map[string]uint64{"exits": io + interrupts + deadline + 1, "io_exits": io, "pf_fixed": 0}, Traced: b,
	}
}

func TestSteadyExits(t *testing.T) {
	n, ok := traced("x", 1, 1, 100, 40, 20).steady()
	require.True(t, ok)
	require.EqualValues(t, 101, n, "neither interrupts nor the setting of the timer")
	_, ok = sample{}.steady()
	require.False(t, ok)
}

func report() *result {
	cpu := 0.25
	r := &result{
		Rounds:   2,
		Monitors: []monitor{{Name: nameHusk, Argv: []string{"husk", "--cmdline", commandLine}}, {Name: nameReference}, {Name: "gokvm"}},
		Samples: []sample{
			traced(nameHusk, 2, 4, 100, 40, 20),
			traced(nameHusk, 4, 6, 300, 40, 20),
			traced(nameReference, 6, 48, 399, 1, 0),
			{Monitor: "gokvm", Round: 1, Error: "it ended"},
		},
	}
	r.Samples[0].CPUToFirstRun = &cpu
	return r
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, report().write(&out))
	text := out.String()
	require.Contains(t, text, "--cmdline 'console=ttyS0 quiet'", "a command that can be pasted")
	require.Contains(t, text, "gokvm, round 1: it ended")
	require.Contains(t, text, "exits 0.65 times (261 against 401)")
	require.Contains(t, text, "seconds to init 0.50 times (3 against 6)")
	require.Contains(t, text, "5.0 MiB, within its 8 MiB")
	require.Regexp(t, `husk +261 +201 +200 +0 +3\.000 +5\.0 +250\.0 +2 of 2`, text)
	require.Regexp(t, `gokvm +- +- +- +- +- +- +- +0 of 2`, text)
	require.Regexp(t, `port I/O +200 +399 +0\n`, text)
	require.Regexp(t, `0x3f8 out +200 +399\n`, text)
}

func TestReportBounds(t *testing.T) {
	r := report()
	for i := range uint64(40) {
		r.Samples[0].Traced.MMIO[cpuidName(i)] = 2
	}
	require.Len(t, r.breakdown([]string{nameHusk}, func(b *breakdown) map[string]uint64 { return b.MMIO }), 40)
	var out bytes.Buffer
	require.NoError(t, r.write(&out))
	require.Regexp(t, `16 others +16 +0\n`, out.String(), "half of 2 each: the other boot has none")
}

func TestJSONKeepsEverySample(t *testing.T) {
	want := report()
	var out bytes.Buffer
	require.NoError(t, want.writeJSON(&out))
	var got result
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	require.Equal(t, want, &got)
}

func TestFlags(t *testing.T) {
	kernel := filepath.Join(t.TempDir(), "vmlinuz")
	require.NoError(t, os.WriteFile(kernel, nil, 0o600))
	o, err := parse([]string{"--kernel", kernel, "--husk", "/bin/true", "--rounds", "3"})
	require.NoError(t, err)
	require.Equal(t, 3, o.rounds)
	require.Empty(t, o.vmlinux, "there is none beside the kernel")

	for _, args := range [][]string{
		{"--kernel", kernel + "-not"},
		{"--kernel", kernel, "--husk", "/does/not/exist"},
		{"--kernel", kernel, "--husk", "/bin/true", "--rounds", "0"},
		{"--kernel", kernel, "--husk", "/bin/true", "--where", "there"},
		{"--kernel", kernel, "--husk", "/bin/true", "more"},
	} {
		_, err := parse(args)
		require.Error(t, err, "%q", args)
	}
}

// TestTakeFails: a monitor that does not boot is a sample with a reason, and is gone.
func TestTakeFails(t *testing.T) {
	s := sample{}
	err := s.boot(monitor{Argv: []string{"/does/not/exist"}}, nil, 0)
	require.True(t, errors.Is(err, os.ErrNotExist), "%v", err)
	s = take(monitor{Name: "x", Argv: []string{"/bin/echo", "no kernel here"}}, 1, nil, 10e9)
	require.Contains(t, s.Error, "no kernel here")
	s = take(monitor{Name: "x", Argv: []string{"/bin/sleep", "100"}}, 1, nil, 1e6)
	require.Contains(t, s.Error, "timeout")
}
