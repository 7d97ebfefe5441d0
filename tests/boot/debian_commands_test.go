package boot

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/agent"
)

// TestDebianRunsCommands: a Debian boots by its own initrd and systemd as it always
// does, and the agent that started before them runs commands in whatever is the
// root by then.
func TestDebianRunsCommands(t *testing.T) {
	image := overlay(t)
	boot := t.TempDir()
	base := debianFile(t, "debian.raw")
	names := strings.Fields(tool(t, "debugfs", "-R", "ls -l /boot", base))
	dump := func(prefix string) string {
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				to := filepath.Join(boot, name)
				tool(t, "debugfs", "-R", "dump /boot/"+name+" "+to, base)
				return to
			}
		}
		require.Fail(t, "there is no "+prefix)
		return ""
	}
	k, own := dump("vmlinuz-"), dump("initrd.img-")
	modules, err := filepath.Abs("../../build/kernels/cloud/lib/modules")
	require.NoError(t, err)
	c := command(t, "-k", k, "-i", own, "-i", commandInitrd(t, k, modules, "/init"), "-d", image, "-m", "1G", "-c", "2",
		"-a", "root=/dev/vda ro rdinit=/husk-init")

	// The first command finds the initramfs as its root, most likely, before anything is mounted.
	require.Equal(t, "early\n", c.must("sh", "-c", "echo early"))
	c.waitFor(t, "login:")
	require.Contains(t, c.must("cat", "/etc/os-release"), "Debian")
	require.Equal(t, "running\n", c.must("systemctl", "is-system-running", "--wait"), "%s", c.must("systemctl", "--failed"))
	require.Equal(t, "husk-debian\n", c.must("hostname"))
	require.Regexp(t, `^/dev/vda / ext4`, c.must("sh", "-c", "grep ' / ' /proc/self/mounts"))
	for _, file := range []string{"/proc/1/mountinfo", "/proc/self/mountinfo"} {
		require.NotContains(t, c.must("cat", file), "husk", "nothing of ours is mounted")
	}
	require.Equal(t, c.must("readlink", "/proc/1/ns/mnt"), c.must("readlink", "/proc/self/ns/mnt"))
	c.must("sh", "-c", "mkdir /tmp/m && mount -t tmpfs none /tmp/m && umount /tmp/m")
	require.Contains(t, c.must("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"), "@husk-agent")

	var b bytes.Buffer
	require.NoError(t, c.Download(t.Context(), "/etc/hostname", &b))
	require.NoError(t, c.Upload(t.Context(), "/root", &b))
	require.Equal(t, "husk-debian\n", c.must("cat", "/root/hostname"))
	var out bytes.Buffer
	code, err := c.Run(t.Context(), agent.Command{
		Argv: []string{"sh", "-c", "tty; stty size"}, TTY: true, Size: agent.Size{Rows: 7, Cols: 70}, Stdout: &out,
	})
	require.NoError(t, err)
	require.Zero(t, code)
	require.Regexp(t, `^/dev/pts/\d+\r\n7 70\r\n$`, out.String())

	before := time.Now()
	require.NoError(t, c.PowerOff(t.Context()))
	r := c.wait(t)
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, "reboot: Power down")
	require.NotContains(t, r.stdout, "stop job", "nothing waits for the agent: it took %v", time.Since(before))
	tool(t, "e2fsck", "-fn", checkImage(t, image))
}

// TestDebianSmoke: a smoke test of a whole distribution needs its image and nothing else.
func TestDebianSmoke(t *testing.T) {
	r, results := smoke(t, "-d", debianFile(t, "debian.raw"), "-m", "1G", "--no-output", "4m",
		"--expect", "login: ", "--run", "systemctl is-system-running --wait", "--run-stdout", "/^running$/",
		"--run", "grep ' / ' /proc/self/mounts", "--run-stdout", "ext4", "--poweroff", "--max-boot", "5m")
	r.wantCode(t, 0)
	a := results.Cases[0].Attempts[0]
	require.Equal(t, "power-off", a.Guest.Outcome)
	require.Empty(t, a.Findings)
	require.Equal(t, "step 4", a.Stage)
}
