package smoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/guestinit"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/internal/smoke/result"
)

// firstProcess has a kernel start husk-init, which starts the initramfs's own.
const firstProcess = "rdinit=/husk-init"

// A guest is husk-init in the guest, which run steps talk to.
type guest struct {
	flags    []string // of husk boot, that bring it there
	listener net.Listener

	ready  chan struct{} // closed when client or err is set
	client *agent.Client
	err    error
}

// openGuest packs husk-init for a case's guest, and waits for it to call.
func openGuest(c *Case, dir string) (*guest, error) {
	g := &guest{ready: make(chan struct{})}
	list, closer, err := c.drivers()
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	o := guestinit.Options{Init: spec.Init{Guest: &spec.Guest{Port: spec.GuestPort}}, Modules: list, Path: "husk-init"}
	if len(c.Initrds) > 0 || c.Kernel == "" {
		o.Init.Guest.Then = "/init"
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
	if g.listener, err = net.Listen("unix", fmt.Sprintf("%s_%d", socket, spec.GuestPort)); err != nil {
		return nil, fmt.Errorf("a socket for the guest: %w", err)
	}
	g.flags = []string{"--add-initrd=" + archive, "--vsock=" + socket}
	go g.accept()
	return g, nil
}

// accept takes the guest's call.
func (g *guest) accept() {
	defer close(g.ready)
	conn, err := g.listener.Accept()
	if err != nil {
		g.err = err
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), helloTime)
	defer cancel()
	g.client, g.err = agent.Connect(ctx, conn)
}

const (
	// helloTime is how long the guest may take to say hello once it has called.
	helloTime = 30 * time.Second
	// maxOutput is what is kept of a command's output, in bytes.
	maxOutput = 1 << 20
)

// connected waits until the guest has called.
func (g *guest) connected(ctx context.Context, ended <-chan struct{}) error {
	select {
	case <-g.ready:
		if g.err != nil {
			return fmt.Errorf("husk-init in the guest: %w", g.err)
		}
		return nil
	case <-ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("husk-init has not called from the guest; its console may say why: %w", context.Cause(ctx))
	}
}

// environment is a command's in the guest.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8"}

// run runs a line in the guest's shell.
func (g *guest) run(ctx context.Context, line string) (*result.Command, error) {
	var stdout, stderr bounded
	cmd := agent.Command{Argv: []string{"/bin/sh", "-c", line}, Env: environment, Stdout: &stdout, Stderr: &stderr}
	code, err := g.client.Run(ctx, cmd)
	return &result.Command{Argv: cmd.Argv, Code: code, Stdout: stdout.String(), Stderr: stderr.String()}, err
}

// powerOff has husk-init power the guest off, if it can.
func (g *guest) powerOff(ctx context.Context) bool {
	select {
	case <-g.ready:
		return g.err == nil && g.client.PowerOff(ctx) == nil
	default:
		return false
	}
}

// close hangs up.
func (g *guest) close() {
	_ = g.listener.Close()
	<-g.ready
	if g.client != nil {
		_ = g.client.Close()
	}
}

// bounded keeps the first maxOutput bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
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
