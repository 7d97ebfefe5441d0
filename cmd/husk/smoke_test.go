package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/hostkernel"
	"github.com/huskvm/husk/internal/smoke"
	"github.com/huskvm/husk/internal/smoke/result"
)

// smokeCases are the cases that arguments make.
func smokeCases(t *testing.T, args ...string) ([]smoke.Case, error) {
	t.Helper()
	f := &smokeFlags{}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.define(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return f.cases(newFakeHost(t).env, fs.Args())
}

// TestReproduceIsTheCase: the command that a report gives makes the same case again.
func TestReproduceIsTheCase(t *testing.T) {
	commands := [][]string{
		{"-k", "bzImage"},
		{"-k", "a b", "-i", "one", "-i", "two", "-a", "quiet", "-a", "x=1", "-c", "4", "-m", "1G", "-d", "disk,ro", "--rng", "-n", "user"},
		{
			"-k", "k", "--expect", "login:", "--within", "10s", "--send", `root\n`, "--run", "uname -r", "--run-code", "2",
			"--run-stdout", "/6/", "--run-stderr", "no", "--sleep", "2s", "--poweroff", "--within", "1m",
		},
		{
			"-k", "k", "--exit", "3", "--expect-not", "/bad/", "--no-detect", "warning", "--allow", "oops=x", "--timeout", "1m", "--no-output", "10s",
			"--max-boot", "500ms", "--reboots", "0", "--retries", "3", "--retry-on", "hang,timeout", "--name", "it's", "--symbols", "System.map", "--modules", "m",
		},
		{"-k", "k", "--cmdline", "all of it", "--transport", "mmio"},
	}
	for _, args := range commands {
		first, err := smokeCases(t, args...)
		require.NoError(t, err)
		require.Len(t, first, 1)
		again, err := smokeCases(t, first[0].Args()...)
		require.NoError(t, err)
		require.Equal(t, first, again)
	}
}

func TestSmokeMatrixOfFlags(t *testing.T) {
	cases, err := smokeCases(t, "-k", "a/bzImage", "-k", "b/bzImage", "-c", "1,4", "-m", "256M")
	require.NoError(t, err)
	require.Len(t, cases, 4)
	require.Equal(t, "smoke [kernel=b/bzImage, cpus=4]", cases[3].Name)
	require.Equal(t, "256M", cases[0].Memory)
}

// TestSmokeUsage: mistakes are exit code 2, and say what is wrong.
func TestSmokeUsage(t *testing.T) {
	for _, tt := range []struct {
		args, want string
	}{
		{"--expect /(/", "expect"},
		{"--within 3s", "of the step before it"},
		{"--expect x --run-code 3", "of the --run before it"},
		{"--send \\q", "backslash"},
		{"--transport warp", "transport"},
		{"--accel tcg", "--accel"},
		{"--no-such-flag", "no-such-flag"},
		{"no-such.yaml", "no-such.yaml"},
		{"--only nothing", "no case has that"},
		{"--only /dev", "any part of a name will do"},
		{"-c 0", "--cpus 0: must be 1 or more"},
		{"--timeout 0", "--timeout 0s: must be more than nothing"},
		{"--no-output 0", "--no-output 0s: must be more than nothing"},
		{"-c 1,1", "--cpus 1: it is given twice"},
		{"-k a/../k -k k", "--kernel k: it is given twice"},
		{"-m 1G,1G", "--memory 1G: it is given twice"},
		{"--kernel= -c 2", "--kernel \"\": name a file"},
		{"--initrd= -c 2", "--initrd \"\": name a file"},
		{"x.yaml ./x.yaml", "FILE x.yaml: it is given twice"},
		{"x.yaml --expect y", "the cases of a file have steps of their own"},
		{"x.yaml --poweroff", "the cases of a file have steps of their own"},
		{"--cmdline a --append b", "use one of them"},
		{"--poweroff=maybe", "poweroff"},
		{"--run x --run-code 300", "0 to 255"},
		{"--json - --tap -", "--tap -: --json goes there already"},
		{"--json f --junit ./f", "--junit ./f: --json goes there already"},
		{"-k k --poweroff --expect x", "nothing can come behind"},
	} {
		h := newFakeHost(t)
		h.canBoot = func() error { return errors.New("no KVM") }
		code := h.husk(append([]string{"smoke"}, strings.Fields(tt.args)...)...)
		require.Equal(t, exitUsage, code, "%s: %s", tt.args, h.err.String())
		require.Contains(t, h.err.String(), tt.want)
	}
}

// TestSmokeInTheLab: where KVM boots no stock kernel, the lab gets the same words, and
// can write what is asked for.
func TestSmokeInTheLab(t *testing.T) {
	h := newFakeHost(t)
	h.canBoot = func() error { return errors.New("no KVM") }
	dir := t.TempDir()
	args := []string{"-k", "bzImage", "--expect", "--", "--send", "a", "--expect", "c", "--junit", dir + "/j.xml", "--out", dir + "/out"}
	require.Equal(t, 42, h.husk(append([]string{"smoke"}, args...)...))
	require.Equal(t, append([]string{"smoke", "--in-lab=auto"}, args...), h.labArgs)
	require.Equal(t, []string{dir, dir + "/out"}, h.labOutputs)
	require.DirExists(t, dir+"/out")
	require.Contains(t, h.err.String(), "running in the lab")
}

// TestSmokeInsideTheLab: husk knows where it is, and gives commands for outside.
func TestSmokeInsideTheLab(t *testing.T) {
	for _, tt := range []struct{ outside, want string }{
		{"auto", "husk smoke --name smoke --kernel none --expect x"},
		{"lab", "husk smoke --accel lab --name smoke --kernel none --expect x"},
	} {
		h := newFakeHost(t)
		h.canBoot = func() error { return errors.New("nobody should ask") }
		require.Zero(t, h.husk("smoke", "--in-lab="+tt.outside, "--accel=lab", "-k", "none", "--expect", "x", "--list"))
		require.Equal(t, "smoke\n  "+tt.want+"\n", h.out.String())

		h = newFakeHost(t)
		h.canBoot = func() error { return errors.New("nobody should ask") }
		json := filepath.Join(t.TempDir(), "json")
		require.Equal(t, 7, h.husk("smoke", "--in-lab="+tt.outside, "--accel=lab", "-k", "none", "--retries=0", "--json", json, "--out", "/dev/null/x"))
		run := readRun(t, json)
		require.Equal(t, "lab", run.Accel)
		require.Empty(t, h.labArgs)
	}
	cases, err := smokeCases(t, "--in-lab=auto", "-k", "none")
	require.NoError(t, err)
	require.Equal(t, labSlowness, cases[0].Slowness)
}

func readRun(t *testing.T, path string) (run result.Run) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &run))
	return run
}

// TestSmokeNotMade: a run that cannot be made has reports, too, with the reason.
func TestSmokeNotMade(t *testing.T) {
	dir := t.TempDir()
	unreadable := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(unreadable, nil, 0o600))
	for _, tt := range []struct {
		name, want string
		lab        error
		args       []string
	}{
		{name: "the lab does not start", want: "no QEMU", lab: errors.New("no QEMU"), args: []string{"-k", "k", "--accel=lab"}},
		{name: "no kernel", want: "kernel", args: []string{"--accel=lab"}},
		{name: "--out", want: "--out: ", args: []string{"-k", "k", "--accel=kvm", "--out", unreadable}},
		{name: "--out, in the lab", want: "--out: ", args: []string{"-k", "k", "--accel=lab", "--out", unreadable}},
		{name: "another report", want: "--tap: ", args: []string{"-k", "k", "--accel=kvm", "--tap", unreadable + "/x"}},
		{name: "a device", want: "the lab has none of this host's devices", args: []string{"-k", "k", "--accel=lab", "-d", "/dev/null,snapshot=off"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := hostkernel.Default(os.Getenv); err == nil && tt.name == "no kernel" {
				t.Skip("this host has one")
			}
			h := newFakeHost(t)
			h.lab = func(context.Context, []string, ...string) (int, error) { return 0, tt.lab }
			json, junit := filepath.Join(t.TempDir(), "json"), filepath.Join(t.TempDir(), "junit")
			require.Equal(t, 7, h.husk(append([]string{"smoke", "-c", "1,2", "--json", json, "--junit", junit}, tt.args...)...))
			require.Contains(t, h.err.String(), tt.want)
			run := readRun(t, json)
			require.Len(t, run.Cases, 2)
			for _, c := range run.Cases {
				require.Equal(t, result.Infrastructure, c.Verdict)
				require.Contains(t, c.Attempts[0].Reason, tt.want)
				require.Contains(t, c.Reproduce, "husk smoke")
			}
			b, err := os.ReadFile(junit)
			require.NoError(t, err)
			require.Contains(t, string(b), tt.want)
		})
	}
}

// TestSmokeStandardOutput: a report has it alone.
func TestSmokeStandardOutput(t *testing.T) {
	for _, flag := range []string{"--json", "--junit", "--tap"} {
		h := newFakeHost(t)
		h.lab = func(context.Context, []string, ...string) (int, error) { return 0, errors.New("no QEMU") }
		require.Equal(t, 7, h.husk("smoke", "-k", "k", "--accel=lab", "--github", flag, "-"))
		require.Contains(t, h.out.String(), "no QEMU")
		require.NotContains(t, h.out.String(), "::error")
		require.Contains(t, h.err.String(), "::error")
		f := &smokeFlags{junit: "-"}
		require.Same(t, h.stderr, f.people(h.env))
	}
}

// TestSmokeDisksInTheLab: what a guest writes to stays, wherever the disk is named, and
// nothing is asked of a disk that is only read.
func TestSmokeDisksInTheLab(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	require.NoError(t, os.WriteFile(image, []byte("x"), 0o600))
	cases := filepath.Join(dir, "cases.yaml")
	require.NoError(t, os.WriteFile(cases, []byte("cases:\n  - {kernel: k, disks: [\"image,snapshot=off\", none]}\n"), 0o600))
	for _, args := range [][]string{{"-k", "k", "-d", image + ",snapshot=off"}, {"-k", "k", "--disk=" + image + ",snapshot=off"}, {cases}} {
		h := newFakeHost(t)
		require.Equal(t, 42, h.husk(append([]string{"smoke", "--accel=lab"}, args...)...), h.err.String())
		require.Equal(t, []string{dir}, h.labOutputs)
	}
	h := newFakeHost(t)
	require.Equal(t, 42, h.husk("smoke", "--accel=lab", "-k", "k", "--disk=/proc/self/status"))
	require.Empty(t, h.labOutputs)
}

// TestSmokeStandardInput: cases can come from there, also in the lab, which reads them
// once more.
func TestSmokeStandardInput(t *testing.T) {
	const text = "cases:\n  - name: one\n    kernel: k\n"
	for _, file := range []string{"-", "/dev/stdin"} {
		h := newFakeHost(t)
		path := filepath.Join(t.TempDir(), "in")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		in, err := os.Open(path)
		require.NoError(t, err)
		defer in.Close()
		h.stdin = in
		inLab := ""
		h.lab = func(context.Context, []string, ...string) (int, error) {
			b, err := io.ReadAll(h.stdin)
			inLab = string(b)
			return 0, err
		}
		require.Zero(t, h.husk("smoke", "--accel=lab", file))
		require.Equal(t, text, inLab)
	}
	h := newFakeHost(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	go func() { _ = os.WriteFile(fifo, []byte(text), 0o600) }()
	require.Equal(t, exitUsage, h.husk("smoke", "--accel=lab", fifo))
	require.Contains(t, h.err.String(), "use - for standard input")
}

// TestSmokeFlagsOverFiles: what is given goes over what a file says.
func TestSmokeFlagsOverFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cases.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`
defaults: {timeout: 1m, retries: 0}
cases:
  - name: one
    kernel: k
    append: quiet
    cpus: 2
    memory: 1G
    boot: [--rng=true, --cpu=host]
    no-detect: warning
    allow: oops=x
    expect-not: no
    steps: [poweroff]
  - name: whole
    kernel: k
    cmdline: all -- init
`), 0o600))
	cases, err := smokeCases(t, path, "-k", "mine", "-c", "4", "-m", "2G", "-a", "last", "-i", "initrd", "--cpu", "host,-xsave", "--timeout", "2m", "--no-detect", "oops", "--allow", "warning=y", "--expect-not", "z", "--reboots", "7", "--retries", "2", "--retry-on", "hang", "--max-boot", "3s", "--no-output", "9s", "--modules", "m", "--symbols", "s")
	require.NoError(t, err)
	require.Len(t, cases, 2)
	c := cases[0]
	c.File, c.Line = "", 0
	require.Equal(t, smoke.Case{
		Name: "one", Kernel: "mine", Append: "quiet last", CPUs: 4, Memory: "2G", Initrds: []string{"initrd"},
		Boot: []string{"--rng=true", "--cpu=host,-xsave"}, Timeout: 2 * time.Minute, NoOutput: 9 * time.Second, MaxBoot: 3 * time.Second,
		NoDetect: []string{"oops"}, Allow: []string{"warning=y"}, ExpectNot: []string{"z"},
		Reboots: 7, Retries: 2, RetryOn: []string{"hang"}, Modules: "m", Symbols: []string{"s"}, Steps: []smoke.Step{{Kind: smoke.PowerOff}},
	}, c)
	require.Equal(t, "all last -- init", cases[1].CommandLine)
	cases, err = smokeCases(t, path)
	require.NoError(t, err)
	require.Equal(t, time.Minute, cases[0].Timeout)
	require.Zero(t, cases[0].Retries)
	require.Equal(t, smoke.DefaultReboots, cases[0].Reboots)

	cases, err = smokeCases(t, "-k", "k", "--poweroff=false", "--sleep", "1s")
	require.NoError(t, err)
	require.Equal(t, []smoke.Step{{Kind: smoke.Sleep, For: time.Second}}, cases[0].Steps)
}

// TestSmokeClosedOutput: a reader that has gone leaves no scratch folder behind, and the
// verdict as it is.
func TestSmokeClosedOutput(t *testing.T) {
	scratch := t.TempDir()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	defer w.Close()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "smoke", "--accel=kvm", "--retries=0", "-k", "none")
	cmd.Env = append(os.Environ(), mainVariable+"=1", "TMPDIR="+scratch)
	cmd.Stdout = w
	err = cmd.Run()
	exit := new(exec.ExitError)
	require.ErrorAs(t, err, &exit)
	require.Equal(t, result.Infrastructure.ExitCode(), exit.ExitCode(), "%v", err)
	left, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestSmokeList(t *testing.T) {
	h := newFakeHost(t)
	require.Zero(t, h.husk("smoke", "-k", "bzImage", "-c", "1,4", "--expect", "it's up", "--list"))
	require.Equal(t, "smoke [cpus=1]\n  husk smoke --name 'smoke [cpus=1]' --kernel bzImage --expect 'it'\\''s up'\n"+
		"smoke [cpus=4]\n  husk smoke --name 'smoke [cpus=4]' --kernel bzImage --cpus 4 --expect 'it'\\''s up'\n", h.out.String())
}

func TestSmokeHelpHasGroups(t *testing.T) {
	h := newFakeHost(t)
	require.Zero(t, h.husk("help", "smoke"))
	for _, title := range []string{"The machine", "Steps, in the order given", "The verdict", "The run", "Results"} {
		require.Contains(t, h.out.String(), "\n"+title+":\n  ")
	}
	require.NotContains(t, h.out.String(), "\nFlags:\n")
	require.NotContains(t, h.out.String(), inLabFlag)
}
