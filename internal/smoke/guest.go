package smoke

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/internal/smoke/result"
)

// firstProcess has a kernel start husk-init, which starts the initramfs's own.
const firstProcess = "rdinit=/husk-init"

// A guest is husk-init in the guest, which run steps talk to.
type guest struct {
	flags []string // of husk boot, that bring it there
	calls *agent.Calls
}

// openGuest packs husk-init for a case's guest, and waits for it to call.
func openGuest(c *Case, dir string) (*guest, error) {
	g := &guest{}
	list, closer, err := c.drivers()
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	o := guestinit.Options{Init: spec.Init{Guest: &spec.Guest{Port: spec.GuestPort}}, Modules: list, Path: "husk-init"}
	if len(c.Initrds) > 0 || c.Kernel == "" {
		o.Init.Guest.Then = cmp.Or(boot.Word(boot.AddWords(c.CommandLine, c.Append), "rdinit"), "/init")
	}
	archive := filepath.Join(dir, "husk-init.cpio")
	f, err := os.Create(archive)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(guestinit.Initramfs(f, o), f.Close()); err != nil {
		return nil, err
	}
	// The guest calls a port of its host, which is a Unix socket here (Firecracker's
	// convention).
	socket := filepath.Join(dir, "vsock")
	l, err := net.Listen("unix", fmt.Sprintf("%s_%d", socket, spec.GuestPort))
	if err != nil {
		return nil, fmt.Errorf("a socket for the guest: %w; a shorter TMPDIR helps where its path is too long", err)
	}
	g.flags = []string{"--add-initrd=" + archive, "--vsock=" + socket}
	g.calls = agent.Answer(l)
	return g, nil
}

// maxOutput is what is kept of each of a command's outputs, in bytes.
const maxOutput = 1 << 20

// environment is a command's in the guest.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8"}

// run runs a line in the guest's shell, once the guest has called. While the command
// is at work, silently has been called, and not what that returned.
func (g *guest) run(ctx context.Context, line string, ended <-chan struct{}, silently func() (over func())) (cmd *result.Command, err error) {
	called := false
	err = g.calls.With(ctx, ended, func(client *agent.Client) error {
		called = true
		defer silently()()
		var stdout, stderr bounded
		argv := []string{"/bin/sh", "-c", line}
		code, err := client.Run(ctx, agent.Command{Argv: argv, Env: environment, Stdout: &stdout, Stderr: &stderr})
		cmd = &result.Command{Argv: argv, Code: code, Stdout: stdout.String(), Stderr: stderr.String()}
		return err
	})
	if err != nil && !called {
		return nil, fmt.Errorf("husk-init has not called from the guest; its console may say why: %w", err)
	}
	return cmd, err
}

// powerOff has husk-init power the guest off, if it has called and can.
func (g *guest) powerOff(ctx context.Context, ended <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return g.calls.With(ctx, ended, func(client *agent.Client) error { return client.PowerOff(ctx) }) == nil
}

// callTime is how long a guest that is to power off may take to call, and to do so.
const callTime = 30 * time.Second

// close hangs up.
func (g *guest) close() { g.calls.Close() }

// bounded keeps the first maxOutput bytes, and counts the rest.
type bounded struct {
	kept bytes.Buffer
	rest int
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(maxOutput-b.kept.Len(), len(p))
	b.kept.Write(p[:n])
	b.rest += len(p) - n
	return len(p), nil
}

func (b *bounded) String() string {
	if b.rest == 0 {
		return b.kept.String()
	}
	return fmt.Sprintf("%s\n[husk: %d bytes more are left out]\n", b.kept.String(), b.rest)
}

// said is the end of what a command said, for people.
func said(c *result.Command) string {
	text := strings.TrimSpace(c.Stderr)
	if text == "" {
		text = strings.TrimSpace(c.Stdout)
	}
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	last := lines[len(lines)-1]
	const most = 200
	if len(last) > most {
		last = last[:most] + "…"
	}
	return fmt.Sprintf(": %q", last)
}
