package vmmtest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/vmm"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// TestAGuest: all that one can do with one guest.
func TestAGuest(t *testing.T) {
	Need(t)
	ctx := t.Context()
	vm := Start(t, Config{})
	version := vm.Expect(`Linux version (\S+)`)
	require.Len(t, version, 2)
	require.Contains(t, vm.Serial(), version[0])

	out := vm.Run(ctx, "uname")
	require.Zero(t, out.Code, "%v", out)
	require.Contains(t, out.Stdout, version[1])
	require.Equal(t, 127, vm.Run(ctx, "no-such-program").Code)

	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/in/sub", 0o755))
	require.NoError(t, os.WriteFile(dir+"/in/sub/file", []byte("there and back\n"), 0o644))
	vm.Copy(ctx, dir+"/in", "/data/in")
	require.Equal(t, "there and back\n", vm.Run(ctx, "cat", "/data/in/sub/file").Stdout)
	vm.CopyOut(ctx, "/data/in/sub", dir+"/out")
	text, err := os.ReadFile(filepath.Join(dir, "out", "file"))
	require.NoError(t, err)
	require.Equal(t, "there and back\n", string(text))

	_, err = vm.RunCommand(ctx, Command{Argv: []string{"cat"}, Stdin: strings.NewReader("x")})
	require.NoError(t, err)
	vm.PowerOff()
	require.Equal(t, vmm.PowerOff, vm.Wait().Outcome)
	_, err = vm.RunCommand(ctx, Command{Argv: []string{"echo"}})
	require.ErrorContains(t, err, "the guest has ended: power-off")
}

// TestTheButton: the guest has the drivers for it.
func TestTheButton(t *testing.T) {
	Need(t)
	t.Parallel()
	vm := Start(t, Config{Append: "quiet"})
	require.Zero(t, vm.Run(t.Context(), "echo").Code)
	vm.PowerButton()
	require.Equal(t, vmm.PowerOff, vm.Wait().Outcome)
}

// TestAPanicIsNotWaitedFor: it ends an Expect and a Run at once.
func TestAPanicIsNotWaitedFor(t *testing.T) {
	Need(t)
	t.Parallel()
	vm := Start(t, Config{Append: "panic=0"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.Zero(t, vm.Run(ctx, "echo").Code)
	_, err := vm.RunCommand(ctx, Command{Argv: []string{"panic"}})
	require.ErrorContains(t, err, "panic")
	require.NoError(t, ctx.Err())
}
