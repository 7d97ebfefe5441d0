package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/vmm"
)

func TestBootMakesTheMachineAsked(t *testing.T) {
	kernel, initrd, second := file(t, "bzImage", "kernel"), file(t, "one", "first"), file(t, "two", "second")
	tests := []struct {
		name  string
		args  []string
		check func(t *testing.T, cfg vmm.Config)
	}{
		{"defaults", nil, func(t *testing.T, cfg vmm.Config) {
			require.Equal(t, kernel, cfg.Kernel.Name)
			require.Empty(t, cfg.Initrds)
			require.Equal(t, vmm.DefaultCommandLine, cfg.CommandLine)
			require.EqualValues(t, vmm.DefaultMemory, cfg.Memory)
			require.Equal(t, 1, cfg.CPUs)
			require.Equal(t, vmm.BackingTHP, cfg.Backing)
			require.Equal(t, "host", cfg.CPU.Model)
			require.False(t, cfg.DebugExit)
			require.NotNil(t, cfg.Serial)
			require.NotNil(t, cfg.Log)
		}},
		{"short flags", []string{"-i", initrd, "-i", second, "-a", "quiet", "-a", "x=1 y", "-m", "1G", "-c", "4"}, func(t *testing.T, cfg vmm.Config) {
			require.Equal(t, initrd, cfg.Initrds[0].Name)
			require.Equal(t, second, cfg.Initrds[1].Name)
			require.Equal(t, vmm.DefaultCommandLine, cfg.CommandLine)
			require.Equal(t, "quiet x=1 y", cfg.Append)
			require.EqualValues(t, 1<<30, cfg.Memory)
			require.Equal(t, 4, cfg.CPUs)
		}},
		{"long flags", []string{"--cmdline", "console=ttyS0", "--memory=64", "--cpus=2", "--cpu=max-migratable,-avx2", "--memory-backing=shared", "--debug-exit"}, func(t *testing.T, cfg vmm.Config) {
			require.Equal(t, "console=ttyS0", cfg.CommandLine)
			require.EqualValues(t, 64<<20, cfg.Memory)
			require.Equal(t, 2, cfg.CPUs)
			require.Equal(t, vmm.CPU{Model: "max-migratable", Remove: []string{"avx2"}}, cfg.CPU)
			require.Equal(t, vmm.BackingShared, cfg.Backing)
			require.True(t, cfg.DebugExit)
		}},
		{"an empty command line", []string{"--cmdline="}, func(t *testing.T, cfg vmm.Config) { require.Empty(t, cfg.CommandLine) }},
		{"no serial", []string{"--serial=none"}, func(t *testing.T, cfg vmm.Config) { require.Nil(t, cfg.Serial) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHost(t)
			require.Equal(t, exitOK, h.husk(append([]string{"boot", "-k", kernel}, tt.args...)...), h.err.String())
			require.Len(t, h.made, 1)
			tt.check(t, h.made[0])
			require.Equal(t, 1, h.closed)
			require.Empty(t, h.err.String(), "a guest that powers off leaves nothing to say")
		})
	}
}

func TestBootRefuses(t *testing.T) {
	kernel := file(t, "bzImage", "kernel")
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"two command lines", []string{"-a", "x", "--cmdline", "y"}, "use one of them\nsee husk boot --help"},
		{"negative timeout", []string{"--timeout=-1s"}, "--timeout -1s"},
		{"timeout without a unit", []string{"--timeout=10"}, "see husk boot --help"},
		{"accel", []string{"--accel=tcg"}, `--accel "tcg": must be one of auto, kvm, lab`},
		{"accel, two words", []string{"--accel=auto kvm"}, `must be one of`},
		{"on-reboot", []string{"--on-reboot="}, "must be one of exit, restart, fail"},
		{"log level", []string{"--log-level=loud"}, "--log-level"},
		{"log format", []string{"--log-format=xml"}, "--log-format"},
		{"serial", []string{"--serial=file:"}, "--serial"},
		{"serial file", []string{"--serial=file:" + missing + "/log"}, "--serial: open " + missing},
		{"memory", []string{"-m", "lots"}, "--memory"},
		{"no memory", []string{"-m", "0"}, "--memory 0: "},
		{"too much memory", []string{"-m", "100T"}, "give at most"},
		{"odd memory", []string{"-m", "513M"}, "multiple of 2 MiB"},
		{"no CPUs", []string{"-c", "0"}, "--cpus 0"},
		{"too many CPUs", []string{"-c", "65"}, "65"},
		{"cpu", []string{"--cpu=486"}, "--cpu"},
		{"backing", []string{"--memory-backing=paper"}, "--memory-backing"},
		{"a share without a tag", []string{"--share", "/tmp"}, "--share: "},
		{"no share", []string{"-k", kernel, "--share", "t=" + missing}, "share t: stat " + missing},
		{"no kernel", []string{"-k", missing}, "husk: kernel: open " + missing},
		{"a kernel without a name", []string{"-k", ""}, "leave the flag out"},
		{"no initrd", []string{"-i", missing}, "husk: initrd: open " + missing},
		{"a folder as initrd", []string{"-i", t.TempDir()}, "is a directory"},
		{"stats in no folder", []string{"--stats", missing + "/s.json"}, "--stats"},
		{"stats on a folder", []string{"--stats", t.TempDir()}, "is a directory"},
		{"dry run of what is no kernel", []string{"--dry-run"}, kernel},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHost(t)
			require.Equal(t, exitFailed, h.husk(append([]string{"boot", "-k", kernel}, tt.args...)...))
			require.Regexp(t, "^husk: ", h.err.String())
			require.Contains(t, h.err.String(), tt.want)
			require.NotRegexp(t, "^husk: .+: configuration: ", h.err.String(), "the input is named already")
			require.Empty(t, h.made)
			require.Empty(t, h.out.String())
		})
	}
}

func TestInputErrorsStayWhatTheyAre(t *testing.T) {
	_, _, err := vmm.OpenSource("/missing")
	err = inputError{"kernel", err}
	require.ErrorIs(t, err, vmm.ErrConfig)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestKernelFromTheEnvironment(t *testing.T) {
	kernel := file(t, "bzImage", "kernel")
	h := newFakeHost(t)
	h.getenv = func(name string) string {
		require.Equal(t, "HUSK_KERNEL", name)
		return kernel
	}
	require.Equal(t, exitOK, h.husk("boot"))
	require.Equal(t, kernel, h.made[0].Kernel.Name)
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		name   string
		result vmm.Result
		err    error
		args   []string
		code   int
		says   string
	}{
		{name: "power-off", result: vmm.Result{Outcome: vmm.PowerOff}, code: 0},
		{name: "reboot", result: vmm.Result{Outcome: vmm.Reboot}, code: 0},
		{name: "unwanted reboot", result: vmm.Result{Outcome: vmm.Reboot}, args: []string{"--on-reboot=fail"}, code: 121, says: "asked for a reboot"},
		{name: "power-off, reboots unwanted", result: vmm.Result{Outcome: vmm.PowerOff}, args: []string{"--on-reboot=fail"}, code: 0},
		{name: "debug exit", result: vmm.Result{Outcome: vmm.DebugExit, Code: 33}, code: 33},
		{name: "debug exit, wide", result: vmm.Result{Outcome: vmm.DebugExit, Code: 0x1ff}, code: 255},
		{name: "triple fault", result: vmm.Result{Outcome: vmm.TripleFault, Dump: &vmm.Dump{Hint: "look here"}}, code: 122, says: "hint: look here"},
		{name: "internal error", result: vmm.Result{Outcome: vmm.InternalError, Detail: "suberror 1"}, code: 122, says: "husk: internal-error: suberror 1"},
		{name: "panic", result: vmm.Result{Outcome: vmm.GuestPanic, Detail: "no init"}, code: 123, says: "kernel panicked: no init"},
		{name: "panic, silent", result: vmm.Result{Outcome: vmm.GuestPanic}, code: 123, says: "did not say why"},
		{name: "husk failed", err: errors.New("lost it"), code: 125, says: "husk: lost it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHost(t)
			h.run = func(context.Context, *fakeMachine) (*vmm.Result, error) { return &tt.result, tt.err }
			stats := filepath.Join(t.TempDir(), "stats.json")
			args := append([]string{"boot", "-k", file(t, "bzImage", "kernel"), "--stats", stats}, tt.args...)
			require.Equal(t, tt.code, h.husk(args...))
			require.Contains(t, h.err.String(), tt.says)

			text, err := os.ReadFile(stats)
			require.NoError(t, err, "the figures are written however it ends")
			var got struct {
				ExitCode int               `json:"exit_code"`
				Exits    map[string]uint64 `json:"exits"`
				Result   vmm.Result        `json:"result"`
			}
			require.NoError(t, json.Unmarshal(text, &got))
			require.Equal(t, tt.code, got.ExitCode)
			require.EqualValues(t, 7, got.Exits["io"])
			require.Equal(t, tt.result.Outcome, got.Result.Outcome)
		})
	}
}

func TestRestart(t *testing.T) {
	h := newFakeHost(t)
	h.run = func(context.Context, *fakeMachine) (*vmm.Result, error) {
		if len(h.made) < 3 {
			return &vmm.Result{Outcome: vmm.Reboot}, nil
		}
		return &vmm.Result{Outcome: vmm.DebugExit, Code: 5}, nil
	}
	require.Equal(t, 5, h.husk("boot", "-k", file(t, "bzImage", "kernel"), "--on-reboot=restart"))
	require.Len(t, h.made, 3)
	require.Equal(t, 3, h.closed)
}

func TestStatsLeaveDevicesAlone(t *testing.T) {
	h := newFakeHost(t)
	kernel := file(t, "bzImage", "kernel")
	require.Equal(t, exitOK, h.husk("boot", "-k", kernel, "--stats", os.DevNull))
	info, err := os.Stat(os.DevNull)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&os.ModeCharDevice)

	target := file(t, "target", "old")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(target, link))
	require.Equal(t, exitOK, h.husk("boot", "-k", kernel, "--stats", link))
	text, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Contains(t, string(text), `"exit_code": 0`)

	require.Equal(t, exitOK, h.husk("boot", "-k", kernel, "--stats", "-"))
	require.Contains(t, h.err.String(), `"exit_code": 0`)
	require.Empty(t, h.out.String())
}

func TestStatsReplaceTheFileAtOnce(t *testing.T) {
	path := file(t, "stats.json", "old")
	s, err := openStatsFile(path, nil)
	require.NoError(t, err)
	before, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = before.Close() }()
	require.NoError(t, s.write(statsReport{ExitCode: 3}))
	old := make([]byte, 16)
	n, err := before.Read(old)
	require.NoError(t, err)
	require.Equal(t, "old", string(old[:n]), "who has the old file open goes on reading that")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no draft is left")
}

func TestAccel(t *testing.T) {
	kernel := tinyKernel(t, loop)
	no := errors.New("/dev/kvm emulates")
	tests := []struct {
		name  string
		kvm   error
		args  []string
		inLab bool
		says  string
	}{
		{"auto, KVM will do", nil, nil, false, ""},
		{"auto, KVM will not do", no, nil, true, "husk: /dev/kvm emulates; running in the lab"},
		{"kvm all the same", no, []string{"--accel=kvm"}, false, ""},
		{"lab all the same", nil, []string{"--accel=lab"}, true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHost(t)
			h.canBoot = func() error { return tt.kvm }
			code := h.husk(append([]string{"boot", "-k", kernel}, tt.args...)...)
			require.Equal(t, tt.inLab, h.labArgs != nil)
			require.Equal(t, tt.inLab, len(h.made) == 0)
			require.Equal(t, tt.inLab, code == 42, "the lab's exit code is husk's")
			require.Contains(t, h.err.String(), tt.says)
			if tt.says == "" {
				require.Empty(t, h.err.String())
			}
		})
	}
}

func TestLabIsNotStartedForNoKernel(t *testing.T) {
	h := newFakeHost(t)
	require.Equal(t, exitFailed, h.husk("boot", "--accel=lab", "-k", file(t, "bzImage", "no kernel at all")))
	require.Nil(t, h.labArgs)
}

func TestDryRunNeedsNoHost(t *testing.T) {
	h := newFakeHost(t)
	h.canBoot = func() error { t.Error("the host was asked"); return nil }
	require.Equal(t, exitFailed, h.husk("boot", "-k", file(t, "bzImage", "no kernel at all"), "--dry-run", "--accel=lab"))
	require.Nil(t, h.labArgs)
}

func TestLabArgs(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	require.NoError(t, os.Rename(tinyKernel(t, loop), "vmlinux"))
	for _, name := range []string{"a", "b"} {
		require.NoError(t, os.WriteFile(name, []byte("x"), 0o600))
	}
	h := newFakeHost(t)
	require.Equal(t, 42, h.husk("boot", "--accel=lab", "-k", "vmlinux", "-i", "a", "--initrd=b", "-a", "x y", "-a", "z,w", "--stats=s.json",
		"--serial=file:log", "--debug-exit", "-m", "256M", "--timeout=90s", "--"))
	require.ElementsMatch(t, []string{
		"boot", "--initrd=" + dir + "/a", "--initrd=" + dir + "/b", "--append=x y", "--append=z,w", "--stats=" + dir + "/s.json",
		"--serial=file:" + dir + "/log", "--debug-exit=true", "--memory=256M", "--timeout=1m30s", "--accel=kvm", "--kernel=" + dir + "/vmlinux",
	}, h.labArgs)
	require.Equal(t, "boot", h.labArgs[0])
}
