package inguest

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	ask  = flag.Bool("ask", false, "be in a guest, or fail")
	does = flag.String("does", "", "what the test does: pass, fail, exit, hang, panic, poweroff, write")
)

// inGuest skips a test that is not in a guest.
func inGuest(t *testing.T) {
	t.Helper()
	if !*ask {
		t.Skip("runs in a guest, by tests/boot")
	}
}

func TestSign(t *testing.T) {
	require.Equal(t, 1, Sign(5))
	require.Equal(t, 0, Sign(0))
}

// TestTheGuest: this is a guest, and yet nothing is where it was not.
func TestTheGuest(t *testing.T) {
	inGuest(t)
	require.Zero(t, os.Getuid())
	first, err := os.Readlink("/proc/1/exe")
	require.NoError(t, err)
	require.Contains(t, first, "init")

	text, err := os.ReadFile("testdata/seed.txt")
	require.NoError(t, err)
	require.Equal(t, "what the package has\n", string(text))
	dir, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, os.Getenv("PWD"), dir)
	require.NoFileExists(t, "testdata/left-out.bin")
	if extra := os.Getenv("INGUEST_EXTRA"); extra != "" {
		require.FileExists(t, extra)
	}

	require.NoError(t, os.WriteFile(filepath.Join(t.TempDir(), "x"), nil, 0o600))
	me, err := user.Current()
	require.NoError(t, err)
	require.Equal(t, "root", me.Username)
	l, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// TestDoes what it is told to.
func TestDoes(t *testing.T) {
	inGuest(t)
	switch what, arg, _ := strings.Cut(*does, "="); what {
	case "fail":
		t.Error("this test fails")
	case "exit":
		fmt.Fprintln(os.Stderr, "to stderr")
		os.Exit(42)
	case "echo":
		_, err := io.Copy(os.Stdout, bufio.NewReader(os.Stdin))
		require.NoError(t, err)
	case "hang":
		fmt.Println("it hangs")
		time.Sleep(time.Hour)
	case "panic":
		require.NoError(t, os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
		time.Sleep(time.Hour)
	case "write":
		require.NoError(t, os.WriteFile(arg, []byte("from the guest\n"), 0o644))
	case "run":
		out, err := exec.Command(arg).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}
