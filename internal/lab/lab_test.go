package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestArguments(t *testing.T) {
	o := Options{CPUs: 3, Memory: 1 << 30, Shares: []Share{
		{Host: "/home/a,b", Guest: "/home/a,b"}, {Host: "/data", Guest: "/d", ReadOnly: true},
	}}
	line := strings.Join(o.args(quiet), " ")
	for _, part := range []string{
		"-accel tcg,thread=single,tb-size=1024 -cpu max,+svm,+npt,-la57,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-pku,-mpx -smp 3 -m 1024M",
		"-kernel /proc/self/fd/4 -initrd /proc/self/fd/5 -append console=ttyS0 ",
		" quiet ",
		"-chardev socket,id=agent,fd=3 -device virtserialport,chardev=agent,name=husk.agent",
		"-fsdev local,id=host,path=/,security_model=none,multidevs=remap,readonly=on -device virtio-9p-pci,fsdev=host,mount_tag=host",
		"-fsdev local,id=share0,path=/home/a,,b,security_model=none,multidevs=remap -device virtio-9p-pci,fsdev=share0,mount_tag=share0",
		"-fsdev local,id=share1,path=/data,security_model=none,multidevs=remap,readonly=on",
	} {
		require.Contains(t, line, part)
	}
	require.Contains(t, strings.Join(o.args(verbose), " "), " loglevel=7 ")
	require.NotContains(t, line, "idle=")
	o.Awake = true
	require.Contains(t, strings.Join(o.args(quiet), " "), " quiet idle=poll ")

	l := o.init().Lab
	require.Equal(t, "host", l.Root)
	require.Equal(t, "/home/a,b", l.Shares[0].Path)
	require.Equal(t, "share1", l.Shares[1].Tag)
	require.True(t, l.Shares[1].ReadOnly)
}

func TestMissing(t *testing.T) {
	_, err := findQEMU("husk-no-such-qemu")
	require.ErrorIs(t, err, ErrMissing)
	require.ErrorContains(t, err, "apt-get install qemu-system-x86")
	require.ErrorContains(t, err, "dnf install")

	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("no kernel"), 0o644))
	for _, name := range []string{text, "/nowhere/vmlinuz"} {
		_, err := findKernel(name)
		require.ErrorIs(t, err, ErrMissing)
		require.ErrorContains(t, err, name)
		t.Setenv(kernelVariable, name)
		_, err = findKernel("")
		require.ErrorContains(t, err, name)
	}
}

// fake makes a program that stands for QEMU.
func fake(t *testing.T, script string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "qemu")
	require.NoError(t, os.WriteFile(name, []byte("#!/bin/sh\n"+script), 0o755))
	return name
}

// bootFake boots with a program for QEMU and nothing to boot.
func bootFake(ctx context.Context, t *testing.T, script, logging string, limit time.Duration) error {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	kernel, err := inMemory("kernel")
	require.NoError(t, err)
	initrd, err := inMemory("initrd")
	require.NoError(t, err)
	f := files{kernel, initrd}
	defer f.close()
	m, err := bootMachine(ctx, Options{QEMU: fake(t, script), BootTimeout: limit}, f, logging)
	require.Nil(t, m)
	return err
}

func TestQEMUFails(t *testing.T) {
	err := bootFake(t.Context(), t, "echo 'qemu: no such machine' >&2; printf 'panic\\033[2J: no init\\n'; exit 1", quiet, time.Minute)
	require.ErrorIs(t, err, ErrBoot)
	require.ErrorContains(t, err, "QEMU: exit status 1")
	require.ErrorContains(t, err, "QEMU says:\nqemu: no such machine")
	require.ErrorContains(t, err, "the end of the lab's console:\npanic[2J: no init")
	_, name, _ := strings.Cut(err.Error(), "its whole console is in ")
	log, rerr := os.ReadFile(name)
	require.NoError(t, rerr)
	require.Equal(t, "panic\033[2J: no init\n", string(log))
}

func TestHang(t *testing.T) {
	err := bootFake(t.Context(), t, "exec sleep 1000", quiet, 50*time.Millisecond)
	require.ErrorIs(t, err, errHang)
	logs, _ := filepath.Glob(os.TempDir() + "/*")
	require.Empty(t, logs, "nothing is left of a start that is tried again")

	err = bootFake(t.Context(), t, "exec sleep 1000", verbose, 50*time.Millisecond)
	require.ErrorIs(t, err, errHang)
	require.ErrorIs(t, err, ErrBoot)
	require.ErrorContains(t, err, "its whole console is in")
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	require.ErrorIs(t, bootFake(ctx, t, "exec sleep 1000", quiet, time.Minute), why)
}

func TestShares(t *testing.T) {
	if _, err := findKernel(""); err != nil {
		t.Skip("no kernel for a lab: tests/fetch-kernels fetches one")
	}
	o := Options{QEMU: "sh", Shares: []Share{{Host: "."}, {Host: "/tmp", Guest: "/mnt"}}}
	c, err := o.complete()
	require.NoError(t, err)
	dir, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, []Share{{Host: dir, Guest: dir}, {Host: "/tmp", Guest: "/mnt"}}, c.Shares)
	require.Equal(t, ".", o.Shares[0].Host, "the caller's is left alone")

	_, err = Options{QEMU: "sh", Shares: []Share{{Host: "/"}}}.complete()
	require.ErrorContains(t, err, "root")
	_, err = Options{QEMU: "sh", Shares: []Share{{Host: "/nowhere"}}}.complete()
	require.ErrorContains(t, err, "/nowhere")
}

func TestTail(t *testing.T) {
	var all strings.Builder
	tl := newTail(&all)
	for range 5 {
		_, err := tl.Write([]byte(strings.Repeat("x", tailSize/2) + "\n"))
		require.NoError(t, err)
	}
	_, _ = tl.Write([]byte("one\ntwo\a\n"))
	require.Len(t, tl.bytes(), tailSize)
	require.Equal(t, "one\ntwo", tl.last(2))
	require.Len(t, all.String(), 5*(tailSize/2+1)+9)
	require.Empty(t, newTail(nil).last(3))
}
