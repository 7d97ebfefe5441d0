package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke"
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
		{"-k k --poweroff --expect x", "nothing can come behind"},
	} {
		h := newFakeHost(t)
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
	require.Equal(t, 42, h.husk("smoke", "-k", "bzImage", "--expect", "b", "--send", "a", "--expect", "c", "--junit", dir+"/j.xml", "--out", dir+"/out"))
	require.Equal(t, []string{"smoke", "-k", "bzImage", "--expect", "b", "--send", "a", "--expect", "c", "--junit", dir + "/j.xml", "--out", dir + "/out", "--accel=kvm", "--timeout=25m0s", "--no-output=5m0s"}, h.labArgs)
	require.Equal(t, []string{dir, dir + "/out"}, h.labOutputs)
	require.DirExists(t, dir+"/out")
	require.Contains(t, h.err.String(), "running in the lab")
}

func TestSmokeList(t *testing.T) {
	h := newFakeHost(t)
	require.Zero(t, h.husk("smoke", "-k", "bzImage", "-c", "1,4", "--expect", "it's up", "--list"))
	require.Equal(t, "smoke [cpus=1]\n  husk smoke --name 'smoke [cpus=1]' --kernel bzImage --expect 'it'\\''s up'\n"+
		"smoke [cpus=4]\n  husk smoke --name 'smoke [cpus=4]' --kernel bzImage --cpus 4 --expect 'it'\\''s up'\n", h.out.String())
}
