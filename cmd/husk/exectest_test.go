package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/gotest"
	guestconsole "github.com/huskvm/husk/internal/smoke/console"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/internal/testvm"
	"github.com/huskvm/husk/vmm"
)

// A fakeGuest runs commands on this host.
type fakeGuest struct {
	client     *agent.Client
	transcript *guestconsole.Transcript
	copied     []string
	closed     bool
	fails      error // in place of running anything
	findings   []result.Finding
}

func (g *fakeGuest) With(ctx context.Context, f func(context.Context, *agent.Client) error) error {
	if g.fails != nil {
		return g.fails
	}
	return f(ctx, g.client)
}

func (g *fakeGuest) CopyOut(_ context.Context, from, _ string) error {
	g.copied = append(g.copied, from)
	return nil
}

func (g *fakeGuest) Console() *guestconsole.Transcript { return g.transcript }

func (g *fakeGuest) Findings() []result.Finding { return g.findings }

func (g *fakeGuest) Close() error {
	g.closed = true
	return nil
}

// hostWithGuests is a host on which guests are fake.
func hostWithGuests(t *testing.T) (*fakeHost, *fakeGuest, *[]testvm.Blueprint) {
	t.Helper()
	h := newFakeHost(t)
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = new(agent.Server).Serve(context.Background(), theirs)
	}()
	client, err := agent.Connect(t.Context(), ours)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		<-served
	})
	g := &fakeGuest{client: client, transcript: guestconsole.New()}
	var made []testvm.Blueprint
	h.startGuest = func(_ context.Context, b testvm.Blueprint) (testGuest, error) {
		made = append(made, b)
		return g, nil
	}
	h.getenv = func(name string) string { return map[string]string{"HUSK_KERNEL": "/k/vmlinuz"}[name] }
	t.Chdir(t.TempDir())
	return h, g, &made
}

// shell is a program that any guest here could run.
func shell(t *testing.T) string {
	t.Helper()
	sh, err := filepath.EvalSymlinks("/bin/sh")
	require.NoError(t, err)
	return sh
}

func TestExecTest(t *testing.T) {
	h, g, made := hostWithGuests(t)
	require.Equal(t, 7, h.husk("exec-test", "-c", "2", "-a", "quiet", "--load", "loop", "--out", "result", shell(t),
		"-c", `echo out; echo err >&2; exit 7`, "-test.coverprofile=/w/cover.out"))
	require.Equal(t, "out\n", h.out.String())
	require.Equal(t, "err\n", h.err.String(), "and nothing of husk's")
	require.True(t, g.closed)
	dir, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, []string{"/w/cover.out", dir + "/result"}, g.copied)
	b := (*made)[0]
	require.Equal(t, "/k/vmlinuz", b.Kernel)
	require.Equal(t, []string{"loop"}, b.Load)
	require.Equal(t, 2, b.Machine.CPUs)
	require.Equal(t, "console=ttyS0 panic=-1 loglevel=5", b.Machine.CommandLine)
	require.Equal(t, "quiet", b.Machine.Append)
	require.GreaterOrEqual(t, b.Machine.Memory, uint64(512<<20))
	require.Zero(t, b.Machine.Memory%(2<<20))
}

// TestTheKernelIsHeardOfFailures, and of nothing else.
func TestTheKernelIsHeardOfFailures(t *testing.T) {
	h, g, _ := hostWithGuests(t)
	g.transcript.Add(0, []byte("before\n"))
	marker := filepath.Join(t.TempDir(), "runs")
	go func() {
		for {
			if _, err := os.Stat(marker); err == nil {
				g.transcript.Add(time.Second, []byte("loop0: \x1b[2Jerror\nEXT4-fs: \x07error\n"))
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	require.Equal(t, 1, h.husk("exec-test", shell(t), "-c", `touch "$1"; sleep 0.2; exit 1`, "sh", marker))
	require.Equal(t, "husk: the guest's kernel said meanwhile:\n  loop0: error\n  EXT4-fs: error\n", h.err.String())
}

// TestAnOopsDuringAGoodTest is told of; the verdict is the test's.
func TestAnOopsDuringAGoodTest(t *testing.T) {
	h, g, _ := hostWithGuests(t)
	g.findings = []result.Finding{{Kind: "oops", Summary: "BUG: kernel NULL pointer dereference"}}
	require.Zero(t, h.husk("exec-test", shell(t), "-c", "true"))
	require.Equal(t, "husk: the guest's kernel has reported (oops): BUG: kernel NULL pointer dereference\n", h.err.String())
}

func TestGuestsThatEndBeforeTheirTest(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		code int
		text string
	}{
		{"panic", &testvm.Ended{Result: &vmm.Result{Outcome: vmm.GuestPanic, Detail: "Kernel panic - not syncing: x"}}, exitPanic, "panicked: Kernel panic - not syncing: x"},
		{"crash", &testvm.Ended{Result: &vmm.Result{Outcome: vmm.TripleFault}}, exitCrash, "triple-fault"},
		{"power off", &testvm.Ended{Result: &vmm.Result{Outcome: vmm.PowerOff}}, exitFailed, "did it power the machine off?"},
		{"husk's failure", &testvm.Ended{Err: errors.New("no more memory")}, exitFailed, "no more memory"},
		{"time", &stop{exitTimeout, "timeout: it had not ended"}, exitTimeout, "timeout: it had"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, g, _ := hostWithGuests(t)
			g.transcript.Add(0, []byte("Call Trace:\n"))
			g.fails = tt.err
			require.Equal(t, tt.code, h.husk("exec-test", shell(t)))
			require.Contains(t, h.err.String(), tt.text)
			require.Contains(t, h.err.String(), "the guest's console:\n  Call Trace:\n")
			require.True(t, g.closed)
		})
	}
}

func TestExecTestTimesOut(t *testing.T) {
	h, _, _ := hostWithGuests(t)
	require.Equal(t, exitTimeout, h.husk("exec-test", "--timeout", "100ms", shell(t), "-c", "sleep 1000"))
	require.Contains(t, h.err.String(), "longer --timeout")
}

// TestSignalsReachTheTest: as go test sends SIGQUIT to one that takes too long.
func TestSignalsReachTheTest(t *testing.T) {
	h, _, _ := hostWithGuests(t)
	ready := filepath.Join(t.TempDir(), "ready")
	go func() {
		for {
			if _, err := os.Stat(ready); err == nil {
				_ = unix.Kill(os.Getpid(), unix.SIGUSR1)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	require.Equal(t, 9, h.husk("exec-test", shell(t), "-c", `trap "exit 9" USR1; touch "$1"; while :; do sleep 0.01; done`, "sh", ready))
}

func TestExecTestInTheLab(t *testing.T) {
	h, _, _ := hostWithGuests(t)
	h.canBoot = func() error { return errors.New("/dev/kvm does not exist") }
	out := t.TempDir()
	dir, err := os.Getwd()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("x", nil, 0o600))
	require.Equal(t, 42, h.husk("exec-test", "-k", "vmlinuz", "--modules=mod", "--include=x", "-m", "1G", shell(t),
		"-test.v", "-test.coverprofile="+out+"/c.out", "-test.gocoverdir="+out, "--stats=x"))
	require.Contains(t, h.err.String(), "/dev/kvm does not exist; running in the lab")
	at := slices.Index(h.labArgs, "--")
	require.ElementsMatch(t, []string{
		"exec-test", "--kernel=" + dir + "/vmlinuz", "--modules=" + dir + "/mod", "--memory=1G", "--include=" + dir + "/x", "--accel=kvm",
	}, h.labArgs[:at])
	require.Equal(t, []string{"--", shell(t), "-test.v", "-test.coverprofile=" + out + "/c.out", "-test.gocoverdir=" + out, "--stats=x"}, h.labArgs[at:])
	require.Equal(t, []string{out}, h.labOutputs)

	cache := out + "/fuzz/pkg"
	require.Equal(t, 42, h.husk("exec-test", shell(t), "-test.fuzz=F", "-test.fuzzcachedir="+cache))
	require.Contains(t, h.labOutputs, cache, "fuzzing would make it")
}

func TestExecTestRefusals(t *testing.T) {
	h, _, made := hostWithGuests(t)
	require.NoError(t, os.WriteFile("big", make([]byte, 2<<20), 0o600))
	for text, args := range map[string][]string{
		"no BINARY given":   {},
		"--accel \"tcg\"":   {"--accel", "tcg", shell(t)},
		"--timeout -1s":     {"--timeout=-1s", shell(t)},
		"--cpus 0":          {"-c", "0", shell(t)},
		"--memory":          {"-m", "lots", shell(t)},
		"--max-size":        {"--max-size", "lots", shell(t)},
		"big has 2.0 MiB":   {"--max-size", "1M", shell(t)},
		"--exclude PATTERN": {"--max-size", "1M", shell(t)},
		"is no ELF file":    {"big"},
		"no such file":      {"./none.test"},
		"--disk":            {"-d", "x,nonsense", shell(t)},
		`pattern "["`:       {"--exclude", "[", shell(t)},
	} {
		h.err = buffer{}
		require.Equal(t, exitFailed, h.husk(append([]string{"exec-test"}, args...)...), args)
		require.Contains(t, h.err.String(), text)
	}
	require.Empty(t, *made)
}

// TestLabShares: what a test writes in the lab reaches this host, or is refused before.
func TestLabShares(t *testing.T) {
	dir := t.TempDir()
	shares, err := labShares([]gotest.Output{{Path: dir + "/new/sub/log"}, {Path: "/dev/null"}, {Path: dir + "/cache", Input: true}})
	require.NoError(t, err)
	require.Equal(t, []string{dir + "/new/sub", dir + "/cache"}, shares)
	require.DirExists(t, dir+"/new/sub")
	_, err = labShares([]gotest.Output{{Path: "/husk.log"}})
	require.ErrorContains(t, err, "the lab cannot write to the folder /")
}
