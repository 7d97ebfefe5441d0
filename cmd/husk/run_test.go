package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/boot/rootfs"
	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/container"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/term"
)

// A fakeContainer stands for the machine of a husk run.
type fakeContainer struct {
	spec    machine.Spec
	streams machine.Streams
	run     func(ctx context.Context, s machine.Streams) (int, error)
	start   error
	started bool // detached
	closed  bool
}

func (c *fakeContainer) ID() string { return c.spec.ID }

func (c *fakeContainer) Start(context.Context) error {
	c.started = true
	return c.start
}

func (c *fakeContainer) Run(ctx context.Context, s machine.Streams) (int, error) {
	c.streams = s
	return c.run(ctx, s)
}

func (c *fakeContainer) Close() error {
	c.closed = true
	return nil
}

// hostWithImages is a host that has the image app:1, and others on which machines are fake.
func hostWithImages(t *testing.T) (*fakeHost, *fakeContainer) {
	t.Helper()
	h := newFakeHost(t)
	dir := t.TempDir()
	kernel := filepath.Join(dir, "vmlinuz")
	require.NoError(t, os.WriteFile(kernel, nil, 0o600))
	h.getenv = func(name string) string {
		return map[string]string{"HUSK_KERNEL": kernel, "XDG_DATA_HOME": dir, "HOME": dir}[name]
	}
	saveImage(t, filepath.Join(dir, "app.tar"), "app:1", v1.ConfigFile{
		Architecture: "amd64", OS: "linux",
		Config: v1.Config{Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"}, Env: []string{"A=1"}, User: "app", WorkingDir: "/srv"},
	})
	saveImage(t, filepath.Join(dir, "none.tar"), "none:1", v1.ConfigFile{Architecture: "amd64", OS: "linux"})
	for _, name := range []string{"app", "none"} {
		require.Equal(t, 0, h.husk("load", "-q", "-i", filepath.Join(dir, name+".tar")), h.err.String())
	}
	h.out, h.err = buffer{}, buffer{}
	c := &fakeContainer{run: func(context.Context, machine.Streams) (int, error) { return 0, nil }}
	h.createMachine = func(_ context.Context, spec machine.Spec) (createdMachine, error) {
		c.spec = spec
		return c, nil
	}
	t.Chdir(dir)
	return h, c
}

// saveImage writes an archive with an image that has one file.
func saveImage(t *testing.T, path, tag string, config v1.ConfigFile) {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &config)
	require.NoError(t, err)
	ref, err := name.ParseReference(tag)
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(path, ref, img))
}

func TestRun(t *testing.T) {
	h, c := hostWithImages(t)
	c.run = func(_ context.Context, s machine.Streams) (int, error) {
		fmt.Fprint(s.Stdout, "out\n")
		fmt.Fprint(s.Stderr, "err\n")
		return 7, nil
	}
	require.Equal(t, 7, h.husk("run", "--rm", "-e", "B=2", "--name", "web", "-m", "256m", "--append", "quiet", "app:1", "-v", "--rm"))
	require.Equal(t, "out\n", h.out.String())
	require.Equal(t, "err\n", h.err.String(), "and nothing of husk's")
	require.Equal(t, []string{"/bin/app", "-v", "--rm"}, c.spec.Process.Argv, "what is behind the image is the command's")
	require.Equal(t, []string{"A=1", "B=2"}, c.spec.Process.Env)
	require.Equal(t, "app", c.spec.Process.User)
	require.False(t, c.spec.Process.OpenStdin)
	require.True(t, c.spec.AutoRemove)
	require.Equal(t, "web", c.spec.Name)
	require.EqualValues(t, 256<<20, c.spec.Memory)
	require.Equal(t, "quiet", c.spec.Append)
	require.Equal(t, "app:1", c.spec.Image.Name)
	require.True(t, strings.HasPrefix(c.spec.Image.ID, "sha256:"))
	require.Equal(t, h.getenv("HUSK_KERNEL"), c.spec.Kernel)
	require.Equal(t, "erofs", c.spec.Root.FileSystem)
	require.FileExists(t, c.spec.Root.File)
	require.Empty(t, c.spec.KVM)
	require.Contains(t, c.spec.Args, "256m")
	require.Nil(t, c.streams.Stdin)
	require.NotNil(t, c.streams.Signals)

	require.Equal(t, 7, h.husk("run", "--accel", "kvm:/dev/kvm2", "--kernel", "vmlinuz", "--entrypoint", "", "--stop-timeout", "3", "-m", "80m", "--timeout", "1m30s", "app:1", "sh"))
	require.EqualValues(t, 80<<20, c.spec.Memory)
	require.Equal(t, 90*time.Second, c.spec.Timeout)
	require.Equal(t, []string{"sh"}, c.spec.Process.Argv)
	require.Equal(t, 3*time.Second, c.spec.Process.StopTimeout)
	require.Equal(t, "/dev/kvm2", c.spec.KVM)
	require.True(t, filepath.IsAbs(c.spec.Kernel))
}

// TestRunGivesInput: only with -i.
func TestRunGivesInput(t *testing.T) {
	h, c := hostWithImages(t)
	require.NoError(t, os.WriteFile("input", []byte("hello"), 0o600))
	in, err := os.Open("input")
	require.NoError(t, err)
	defer in.Close()
	h.stdin = in
	c.run = func(_ context.Context, s machine.Streams) (int, error) {
		_, err := io.Copy(s.Stdout, s.Stdin)
		return 0, err
	}
	require.Zero(t, h.husk("run", "-i", "app:1"))
	require.Equal(t, "hello", h.out.String())
	require.True(t, c.spec.Process.OpenStdin)

	c.run = func(_ context.Context, s machine.Streams) (int, error) {
		require.NotNil(t, s.Stderr)
		require.Nil(t, s.Stdout)
		require.Nil(t, s.Stdin)
		return 0, nil
	}
	require.Zero(t, h.husk("run", "-i", "-a", "STDERR", "app:1"))
}

func TestRunDetached(t *testing.T) {
	h, c := hostWithImages(t)
	require.Zero(t, h.husk("run", "-d", "--cidfile", "id", "app:1"))
	require.Equal(t, c.spec.ID+"\n", h.out.String())
	require.True(t, c.started)
	id, err := os.ReadFile("id")
	require.NoError(t, err)
	require.Equal(t, c.spec.ID, string(id))

	require.Equal(t, exitFailed, h.husk("run", "-d", "--cidfile", "id", "app:1"))
	require.Contains(t, h.err.String(), "delete id")

	h.out, h.err = buffer{}, buffer{}
	c.start = &machine.Failed{Code: 127, Reason: "no such command"}
	require.Equal(t, 127, h.husk("run", "-d", "app:1", "nosuch"))
	require.Equal(t, c.spec.ID+"\n", h.out.String(), "it is there to be removed")
	require.Equal(t, "husk: no such command\n", h.err.String())
}

func TestHowRunsEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		code int
		err  error
		want int
		says string
	}{
		{"its own code", 42, nil, 42, ""},
		{"not found", 0, &machine.Failed{Code: 127, Reason: "exec: nosuch"}, 127, "husk: exec: nosuch\n"},
		{"timeout", 0, &machine.Failed{Code: exitTimeout, Reason: "timeout"}, exitTimeout, "husk: timeout\n"},
		{"detached", 0, term.ErrDetached, 0, ""},
		{"lost", 0, errors.New("lost it"), exitFailed, "husk: lost it\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, c := hostWithImages(t)
			c.run = func(context.Context, machine.Streams) (int, error) { return tt.code, tt.err }
			require.Equal(t, tt.want, h.husk("run", "app:1"))
			require.Equal(t, tt.says, h.err.String())
		})
	}
}

func TestRunRefusals(t *testing.T) {
	h, c := hostWithImages(t)
	require.NoError(t, os.WriteFile("file", nil, 0o600))
	for text, args := range map[string][]string{
		"no IMAGE given":                {"--rm"},
		"unknown flag: --nosuch":        {"--nosuch", "app:1"},
		"--pull \"sometimes\"":          {"--pull", "sometimes", "app:1"},
		"--detach-keys":                 {"--detach-keys", "ctrl-,x", "app:1"},
		"--attach and --detach":         {"-d", "-a", "stdout", "app:1"},
		"--attach \"foo\"":              {"-a", "foo", "app:1"},
		"the input device is not a TTY": {"-it", "app:1"},
		"--accel \"tcg\"":               {"--accel", "tcg", "app:1"},
		"-d is not possible in the lab": {"--accel", "lab", "-d", "app:1"},
		"no such file":                  {"--kernel", "nonexistent", "app:1"},
		"it was not to be pulled":       {"--pull", "never", "other:1"},
		"not an image's name":           {"BAD"},
		"none for linux/arm64":          {"--pull=never", "--platform", "linux/arm64", "app:1"},
		"no command specified":          {"none:1"},
		"--volume \"x y:/x\"":           {"-v", "x y:/x", "app:1"},
		"needs at least 64 MiB":         {"-m", "63m", "app:1"},
		"a number alone is bytes":       {"-m", "512", "app:1"},
		"invalid argument \"5\"":        {"--timeout", "5", "app:1"},
		"--timeout -1s":                 {"--timeout", "-1s", "app:1"},
		"--gpus":                        {"--gpus", "all", "app:1"},
		"as capsh or setpriv do":        {"--cap-drop", "ALL", "app:1"},
		"taskset -c":                    {"--cpuset-cpus=0", "app:1"},
		"not a directory":               {"-v", "./file/x:/x", "app:1"},
		"no such file or directory":     {"--cidfile", "nonexistent/id", "app:1"},
	} {
		h.err = buffer{}
		require.Equal(t, exitFailed, h.husk(append([]string{"run"}, args...)...), args)
		require.Contains(t, h.err.String(), text)
	}
	require.Empty(t, c.spec.ID, "nothing was made")
}

// TestRunInTheLab: with the same flags, absolute paths, and what the volumes write.
func TestRunInTheLab(t *testing.T) {
	h, c := hostWithImages(t)
	h.canBoot = func() error { return errors.New("/dev/kvm does not exist") }
	dir, err := os.Getwd()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("file", nil, 0o600))
	require.Equal(t, 42, h.husk("run", "--rm", "-it=false", "-e", "A=1", "-e", "B", "-v", "./vol:/v", "-v", "data:/d", "-v", "./file:/f", "-v", "/etc:/e:ro",
		"--disk", "d.img,ro", "--pull=missing", "--privileged", "--kernel", "vmlinuz", "-p", "80", "app:1", "sh", "-c", "x"))
	require.Contains(t, h.err.String(), "/dev/kvm does not exist; running in the lab")
	require.Contains(t, h.err.String(), "this host does not see them")
	i, err := os.ReadDir("husk/roots/" + rootfs.Version)
	require.NoError(t, err)
	require.Len(t, i, 1, "the root is made here")
	require.Equal(t, []string{dir + "/vol", dir + "/husk/volumes/data", dir}, h.labOutputs)
	at := len(h.labArgs) - 4
	require.Equal(t, []string{"sh", "-c", "x"}, h.labArgs[at+1:])
	require.Len(t, h.labArgs[at], len("sha256:")+64)
	require.Equal(t, "--", h.labArgs[at-1])
	require.Equal(t, "run", h.labArgs[0])
	require.ElementsMatch(t, []string{
		"--rm=true", "--interactive=true", "--tty=false", "--env=A=1", "--env=B", "--volume=./vol:/v", "--volume=data:/d", "--volume=./file:/f", "--volume=/etc:/e:ro",
		"--disk=" + dir + "/d.img,ro", "--publish=80", "--accel=kvm", "--pull=never", "--kernel=" + dir + "/vmlinuz",
	}, h.labArgs[1:at-1])
	require.DirExists(t, "vol")
	require.Empty(t, c.spec.ID, "no machine is made here")
	require.Equal(t, exitFailed, h.husk("run", "-d", "app:1"))
	require.Contains(t, h.err.String(), "/dev/kvm does not exist; and -d is not possible")
	require.Equal(t, exitFailed, h.husk("run", "--cidfile", "id", "app:1"))
	require.Contains(t, h.err.String(), "--cidfile is not possible in the lab")
	require.NoFileExists(t, "id")
}

// TestWhatDockersUsersType and means nothing here is accepted.
func TestWhatDockersUsersType(t *testing.T) {
	h, c := hostWithImages(t)
	require.Zero(t, h.husk("run", "--privileged", "--init", "--cap-add=SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined",
		"--ipc=private", "--restart=no", "--privileged=false", "--net", "none", "app:1"), h.err.String())
	require.Empty(t, c.spec.Networks)
	require.Equal(t, exitFailed, h.husk("run", "--privileged=maybe", "app:1"))
	for _, f := range container.ForeignFlags() {
		fs, _ := runVerb().flags()
		flag := fs.Lookup(f.Name)
		require.True(t, flag.Hidden, f.Name)
		require.Equal(t, f.Bool, flag.Value.Type() == "bool")
	}
}

// TestAFailedRunLeavesNoIDFile, nor a machine that waits.
func TestAFailedRunLeavesNoIDFile(t *testing.T) {
	h, _ := hostWithImages(t)
	h.createMachine = func(context.Context, machine.Spec) (createdMachine, error) {
		return nil, fmt.Errorf("%w: web", machine.ErrNameTaken)
	}
	require.Equal(t, exitFailed, h.husk("run", "--cidfile", "id", "app:1"))
	require.Contains(t, h.err.String(), "name in use: web")
	require.NoFileExists(t, "id")
}

// TestSignalsReachTheCommand, unless they are about husk, until enough is enough.
func TestSignalsReachTheCommand(t *testing.T) {
	h, c := hostWithImages(t)
	c.run = func(ctx context.Context, s machine.Streams) (int, error) {
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGUSR1))
		require.Equal(t, os.Signal(unix.SIGUSR1), <-s.Signals)
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGWINCH))
		for range insistence - 1 {
			require.NoError(t, unix.Kill(os.Getpid(), unix.SIGTERM))
			require.Equal(t, os.Signal(unix.SIGTERM), <-s.Signals)
		}
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGTERM))
		<-ctx.Done()
		return 0, context.Cause(ctx)
	}
	require.Equal(t, 128+15, h.husk("run", "app:1"))
	require.Contains(t, h.err.String(), "does not end by SIGTERM; it is left running")

	c.run = func(_ context.Context, s machine.Streams) (int, error) {
		require.Nil(t, s.Signals)
		return 0, nil
	}
	require.Zero(t, h.husk("run", "--sig-proxy=false", "app:1"))
}

// TestRunOnATerminal: raw while the command has it, and as before afterwards.
func TestRunOnATerminal(t *testing.T) {
	h, c := hostWithImages(t)
	keys, terminal, err := pty.Open()
	require.NoError(t, err)
	defer keys.Close()
	defer terminal.Close()
	require.NoError(t, pty.Setsize(keys, &pty.Winsize{Rows: 20, Cols: 70}))
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	require.NoError(t, err)
	h.stdin = terminal
	c.run = func(_ context.Context, s machine.Streams) (int, error) {
		raw, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		require.NoError(t, err)
		require.Zero(t, raw.Lflag&unix.ICANON)
		require.Equal(t, agent.Size{Rows: 20, Cols: 70}, s.Size)
		require.Equal(t, agent.Size{Rows: 20, Cols: 70}, <-s.Resizes)
		require.NoError(t, pty.Setsize(keys, &pty.Winsize{Rows: 30, Cols: 90}))
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGWINCH))
		require.Equal(t, agent.Size{Rows: 30, Cols: 90}, <-s.Resizes)
		require.Nil(t, s.Signals, "keys make them")
		_, err = keys.WriteString("ab\x10\x11")
		require.NoError(t, err)
		text, err := io.ReadAll(s.Stdin)
		require.ErrorIs(t, err, term.ErrDetached)
		require.Equal(t, "ab", string(text))
		return 0, term.ErrDetached
	}
	require.Zero(t, h.husk("run", "-it", "app:1"), h.err.String())
	require.True(t, c.spec.Process.TTY)
	after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	require.NoError(t, err)
	require.Equal(t, before, after)

	c.run = func(_ context.Context, s machine.Streams) (int, error) {
		cooked, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		require.NoError(t, err)
		require.Equal(t, before, cooked, "the keys are not the command's")
		require.Nil(t, s.Stdin)
		require.Equal(t, agent.Size{Rows: 30, Cols: 90}, s.Size)
		return 3, nil
	}
	require.Equal(t, 3, h.husk("run", "-t", "app:1"))
}

// TestTheGuideOfRun says something of every flag.
func TestTheGuideOfRun(t *testing.T) {
	guide, err := os.ReadFile("../../docs/run.md")
	require.NoError(t, err)
	fs, _ := runVerb().flags()
	fs.VisitAll(func(flag *pflag.Flag) {
		require.Regexp(t, "--"+flag.Name+`[^a-z-]`, string(guide), flag.Name)
	})
}
