package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/boot/rootfs"
	"github.com/huskvm/husk/internal/container"
	"github.com/huskvm/husk/internal/hostkernel"
	"github.com/huskvm/husk/internal/image"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/term"
)

func runVerb() verb {
	return verb{
		name:  "run",
		args:  "[flags] IMAGE [CMD] [ARG]...",
		short: "run a container image as a virtual machine",
		long: `Runs the command of a container image, or CMD instead, in a virtual machine of its own
with the image's files as its root. IMAGE is a name as husk pull has it; what is not here
is fetched. Flags mean what they mean to docker run; docs/run.md tells of each, and of
what a machine does otherwise. What stands behind IMAGE is the command's.

The kernel is not the image's: it is the one of --kernel, or the newest of this host. What
the guest writes is in its memory, or with --rw-size on a disk, and gone with the machine.

Without -d, husk passes the command's input and output on, and signals (--sig-proxy), and
ends with its exit code. On a terminal (-it), Ctrl-P Ctrl-Q leaves it running. The machine
stays until husk rm, or with --rm until its end.

Exit codes:
  N    the command's own; 128 and a signal's number if that ended it
  122  the machine crashed: triple fault, or KVM could not go on
  123  the guest's kernel panicked
  124  --timeout was up
  125  husk itself failed, wrong usage included
  126  the command cannot be run
  127  there is no such command`,
		examples: `husk run debian:12 cat /etc/os-release
# A shell on this terminal, removed when it ends
husk run -it --rm alpine
# A service in the background, at port 8080 of this host, with files of this host's
husk run -d --name web -p 8080:80 -v ./site:/usr/share/nginx/html:ro nginx
# Two processors, two GiB, and a disk for what is written
husk run --rm --cpus 2 -m 2g --rw-size 10g -v $PWD:/src -w /src golang go build ./...
# Another kernel
husk run --rm --kernel bzImage --append quiet debian:12 uname -r`,
		define: func(fs *pflag.FlagSet) runner {
			fs.SetInterspersed(false)
			f := &runFlags{}
			f.define(fs)
			return func(ctx context.Context, e *env, args []string) (int, error) {
				if len(args) == 0 {
					return 0, usagef("no IMAGE given")
				}
				f.given(fs)
				r := &containerRun{env: e, fs: fs, flags: f, image: args[0]}
				f.Args = args[1:]
				return r.run(ctx)
			}
		},
	}
}

// A containerRun is one husk run.
type containerRun struct {
	env   *env
	fs    *pflag.FlagSet
	flags *runFlags
	image string

	at    endsOf
	noKVM error // why it runs in the lab, where nobody has asked for that
}

// run makes the machine and is at its ends until it has ended.
func (r *containerRun) run(ctx context.Context) (int, error) {
	policy, err := r.check()
	if err != nil {
		return 0, err
	}
	preparing, stop := interruptible(ctx)
	defer stop()
	if r.inTheLab() {
		if err := r.checkForLab(); err != nil {
			return 0, err
		}
	}
	plan, root, err := r.plan(preparing, policy)
	if err != nil {
		return interrupted(preparing, err)
	}
	defer root.Close()
	if err := plan.MakeFolders(); err != nil {
		return 0, err
	}
	if r.inTheLab() {
		stop()
		return r.inLab(ctx, plan)
	}
	id, err := r.openIDFile()
	if err != nil {
		return 0, err
	}
	defer id.discard()
	m, err := r.env.createMachine(preparing, plan.Spec)
	if err != nil {
		return interrupted(preparing, err)
	}
	if err := id.write(m.ID()); err != nil {
		return 0, errors.Join(err, m.Close())
	}
	if r.flags.detach {
		err := m.Start(preparing)
		fmt.Fprintln(r.env.stdout, m.ID()) // that of one which did not start, too: it is left to be removed
		code, err := endOfCommand(r.env, exitOK, err)
		if err != nil {
			return interrupted(preparing, err)
		}
		return code, nil
	}
	stop() // from here on signals are the command's
	defer m.Close()
	at := commandEnds{
		env: r.env, stdin: r.at.stdin, noStdout: !r.at.stdout, noStderr: !r.at.stderr,
		tty: r.flags.TTY, detachKeys: r.flags.detachKeys, signals: r.flags.sigProxy && !r.flags.TTY,
	}
	return at.with(ctx, m.Run)
}

// inTheLab tells whether there is to be no machine of this host's.
func (r *containerRun) inTheLab() bool { return r.noKVM != nil || r.flags.accel == "lab" }

// check finds mistakes that need no look at the image.
func (r *containerRun) check() (policy image.Policy, err error) {
	f := r.flags
	if policy, err = image.ParsePolicy(f.pull); err != nil {
		return "", usagef("--pull %w", err)
	}
	if _, err = term.ParseDetachKeys(f.detachKeys); err != nil {
		return "", usagef("--detach-keys: %w", err)
	}
	if r.at, err = f.attached(); err != nil {
		return "", err
	}
	if f.TTY && r.at.stdin && !term.IsTerminal(r.env.stdin) {
		return "", errors.New("the input device is not a TTY; leave -t out, or start husk on a terminal")
	}
	_, look, err := f.device()
	if err != nil {
		return "", err
	}
	if look {
		r.noKVM = r.env.canBoot()
	}
	if f.kernel == "" {
		if f.kernel, err = hostkernel.Default(r.env.getenv); err != nil {
			return "", err
		}
	}
	for _, path := range []*string{&f.kernel, &f.modules} { // the machine's process is elsewhere
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return "", err
		}
		if _, err := os.Stat(*path); err != nil {
			return "", fmt.Errorf("kernel: %w", err)
		}
	}
	return policy, nil
}

// plan finds the image and plans the machine for it. root is open, so that it stays.
func (r *containerRun) plan(ctx context.Context, policy image.Policy) (*container.Plan, *os.File, error) {
	options, err := r.flags.options(r.env)
	if err != nil {
		return nil, nil, err
	}
	progress := newPullProgress(r.env.stderr, r.image)
	defer progress.close()
	if !r.flags.quiet {
		options.Progress = progress
	}
	store, err := openImages(r.env)
	if err != nil {
		return nil, nil, err
	}
	img, err := store.Find(ctx, r.image, policy, options)
	if err != nil {
		return nil, nil, err
	}
	progress.close()
	host, err := r.host()
	if err != nil {
		return nil, nil, err
	}
	about := container.Image{Name: r.image, ID: img.ID.String(), Config: &img.Config}
	if img.Digest.Hex != "" {
		about.Digest = img.Digest.String()
	}
	plan, err := r.flags.Plan(about, host)
	if err != nil {
		return nil, nil, err
	}
	root, err := r.root(ctx, store, img)
	if err != nil {
		return nil, nil, err
	}
	plan.Root = machine.Root{File: root.Name(), FileSystem: rootfs.FileSystem}
	plan.Kernel, plan.Modules, plan.Args = r.flags.kernel, r.flags.modules, r.env.args
	plan.KVM, _, _ = r.flags.device()
	return plan, root, nil
}

// root is the image's root, made if this is the first time.
func (r *containerRun) root(ctx context.Context, store *image.Store, img *image.Image) (*os.File, error) {
	stderr, isFile := r.env.stderr.(*os.File)
	tell := isFile && term.IsTerminal(stderr) && !r.flags.quiet
	told := false
	root, err := store.Root(ctx, img, rootfs.Version, func(ctx context.Context, w *os.File, layers []image.Layer) error {
		if told = tell; tell {
			fmt.Fprintf(stderr, "husk: making the root of %s, once…", r.image)
		}
		opened := make([]rootfs.Layer, len(layers))
		for i, l := range layers {
			opened[i] = l.Open
		}
		_, err := rootfs.Build(ctx, w, opened)
		return err
	})
	if told {
		fmt.Fprint(stderr, "\r\x1b[K")
	}
	return root, err
}

// host is this one, as a plan sees it.
func (r *containerRun) host() (container.Host, error) {
	dir, err := os.Getwd()
	if err != nil {
		return container.Host{}, err
	}
	data, err := image.DefaultDir(r.env.getenv)
	if err != nil {
		return container.Host{}, err
	}
	return container.Host{LookupEnv: os.LookupEnv, Dir: dir, Volumes: filepath.Join(data, "volumes"), Free: isFree}, nil
}

// isFree tries to listen, as the user network does. Another may be faster to do so in earnest;
// that is told then.
func isFree(proto string, at netip.AddrPort) bool {
	var listener io.Closer
	var err error
	version := ""
	if at.Addr().Is4() {
		version = "4"
	}
	if proto == "udp" {
		listener, err = net.ListenUDP("udp"+version, net.UDPAddrFromAddrPort(at))
	} else {
		listener, err = net.ListenTCP("tcp"+version, net.TCPAddrFromAddrPort(at))
	}
	if err != nil {
		return false
	}
	_ = listener.Close()
	return true
}
