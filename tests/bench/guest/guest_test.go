package guest

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestProgramRuns: the program is an ordinary Linux program, so this host runs it.
func TestProgramRuns(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(program()))
	require.NoError(t, err)
	require.Equal(t, elf.EM_X86_64, f.Machine)

	path := filepath.Join(t.TempDir(), "init")
	require.NoError(t, os.WriteFile(path, program(), 0o755))
	cmd := exec.Command(path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line := make([]byte, len(Marker)+1)
	_, err = out.Read(line)
	require.NoError(t, err)
	require.Equal(t, Marker+"\n", string(line))
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "stat"))
		return err == nil && strings.Contains(string(stat), ") S ")
	}, 10*time.Second, time.Millisecond, "it must sleep after its line")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}

func TestInitramfs(t *testing.T) {
	b, err := Initramfs()
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(b, []byte("070701")))
	require.Contains(t, string(b), "dev/console")
	require.Contains(t, string(b), Marker+"\n")
	require.Less(t, len(b), 4096)
}
