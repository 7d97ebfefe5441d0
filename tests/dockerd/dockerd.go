// Package dockerd starts a Docker daemon of its own for tests and measurements: all it
// has is in one folder, and it ends with who started it. It needs root, and a dockerd
// on PATH.
package dockerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/boot/modules"
)

// A Daemon is one that runs, in a network of its own.
type Daemon struct {
	// Host is its address, as DOCKER_HOST has it.
	Host string
	// Bridge tells whether containers have a network; without it, they have their
	// loopback alone.
	Bridge bool

	dir   string
	cmd   *exec.Cmd
	ended chan struct{}
	log   *os.File
}

// Available says why no daemon can be started, or nothing.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("a Docker daemon needs root")
	}
	for _, program := range []string{"dockerd", "docker", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w; tests/install docker installs it", err)
		}
	}
	return nil
}

// Start starts a daemon, and waits until it takes commands. dir is for its files; on a
// file system that overlayfs takes for its upper one it starts containers faster.
// kernels are folders in which modules of this kernel are looked for, below
// lib/modules.
func Start(ctx context.Context, dir string, kernels ...string) (*Daemon, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	d := &Daemon{dir: dir, Host: "unix://" + filepath.Join(dir, "docker.sock"), Bridge: loadBridge(kernels) == nil}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	// A configuration of the host's would be about another daemon.
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		return nil, err
	}
	var err error
	if d.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	args := []string{
		"--config-file", config, "--iptables=false", "--ip6tables=false",
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--host", d.Host, "--pidfile", filepath.Join(dir, "pid"),
	}
	if !d.Bridge {
		args = append(args, "--bridge=none")
	}
	d.cmd = exec.Command("dockerd", args...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, d.log.Close())
	}
	d.ended = make(chan struct{})
	go func() {
		_ = d.cmd.Wait()
		close(d.ended)
	}()
	for {
		if d.Docker(ctx, "version").Run() == nil {
			return d, nil
		}
		select {
		case <-d.ended:
			return nil, errors.Join(fmt.Errorf("dockerd ended: %s", d.lastWords()), d.Close())
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("dockerd: %w: %s", context.Cause(ctx), d.lastWords()), d.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Docker is a docker command for this daemon.
func (d *Daemon) Docker(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), d.Env()...)
	return cmd
}

// Env is what makes a docker command one of this daemon's, and of no other.
func (d *Daemon) Env() []string {
	return []string{"DOCKER_HOST=" + d.Host, "DOCKER_CONFIG=" + d.dir, "DOCKER_CONTEXT=", "DOCKER_BUILDKIT=0"}
}

// lastWords are the end of the daemon's log.
func (d *Daemon) lastWords() string {
	b, _ := os.ReadFile(d.log.Name())
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "\n")
}

// Close ends the daemon with its containers. Its folder stays.
func (d *Daemon) Close() error {
	const patience = 20 * time.Second
	_ = d.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
	return d.log.Close()
}

// loadBridge sees to the modules of Docker's network, which a kernel may have built in.
func loadBridge(kernels []string) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	version := unix.ByteSliceToString(uts.Release[:])
	for _, k := range append(kernels, "/") {
		tree, err := modules.Open(filepath.Join(k, "lib/modules", version))
		if err != nil {
			continue
		}
		list, err := tree.Resolve("bridge", "veth")
		if err != nil {
			return err
		}
		for _, m := range list {
			image, err := m.Read()
			if err == nil {
				err = unix.InitModule(image, "")
			}
			if err != nil && !errors.Is(err, unix.EEXIST) {
				return err
			}
		}
		return nil
	}
	b, err := os.ReadFile("/proc/kallsyms")
	if err == nil && bytes.Contains(b, []byte(" br_add_bridge")) && bytes.Contains(b, []byte(" veth_newlink")) {
		return nil
	}
	return errors.New("no bridge")
}
