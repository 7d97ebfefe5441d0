// Command beside runs the same containers under Docker, runc and husk, and tells where
// they differ.
//
//	go run ./tests/beside                     # all tests, under all runtimes that are here
//	go run ./tests/beside --record            # what Docker did becomes testdata/docker.json
//	go run ./tests/beside -- busy id -u       # one command
//	go run ./tests/beside -- -u alice busy id # and with flags of docker run
//
// husk needs a KVM that boots stock kernels: where there is none, run it in the lab.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/tests/dockerd"
)

// recorded is where what Docker did is kept.
const recorded = "tests/beside/testdata/docker.json"

type options struct {
	images, husk, kernel, dir string
	modules                   []string
	runtimes                  []string
	record, withDocker        bool
	only                      string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "beside:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var o options
	fs := pflag.NewFlagSet("beside", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.StringVar(&o.images, "images", "build/images/small.tar", "a docker archive with the images")
	fs.StringVar(&o.husk, "husk", "bin/husk", "husk's program")
	fs.StringVar(&o.kernel, "kernel", "build/kernels/cloud/vmlinuz", "the kernel that husk boots")
	fs.StringSliceVar(&o.modules, "modules", []string{"build/kernels/generic"}, "where lib/modules has those of this kernel, for Docker's network")
	fs.StringSliceVar(&o.runtimes, "runtimes", []string{"docker", "runc", "husk"}, "the runtimes; those that are not here are left out")
	fs.StringVar(&o.only, "only", "", "tests with this in their names")
	fs.BoolVar(&o.record, "record", false, "keep what Docker did in "+recorded)
	fs.BoolVar(&o.withDocker, "with-docker", false, "only start a Docker daemon, and run what follows with it as $DOCKER_HOST")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, remove, err := folder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	o.dir = dir
	if o.withDocker {
		return o.runWithDocker(ctx, fs.Args())
	}
	all, closeAll, err := o.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	list := tests()
	if fs.NArg() > 0 {
		list = []test{oneCommand(fs.Args())}
	}
	list = slices.DeleteFunc(list, func(t test) bool { return !strings.Contains(t.name, o.only) })
	outcomes := map[string]map[string]outcome{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		outcomes[name] = runAll(ctx, all[name], list, os.Stderr)
	}
	if o.record {
		return record(outcomes["docker"])
	}
	report(out, list, outcomes, fs.NArg() > 0)
	return nil
}

// folder makes one for the runtimes' files. For root it is a file system in memory:
// overlayfs takes it for its upper one, which the one of the lab's root is not.
func folder() (dir string, remove func() error, err error) {
	if dir, err = os.MkdirTemp("", "husk-beside-"); err != nil {
		return "", nil, err
	}
	if os.Geteuid() == 0 && unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0711") == nil {
		return dir, func() error { return errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)) }, nil
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// start starts the runtimes that are here.
func (o *options) start(ctx context.Context) (map[string]runtime, func() error, error) {
	all := map[string]runtime{}
	closeAll := func() error { return nil }
	for _, name := range o.runtimes {
		var r runtime
		var err error
		switch name {
		case "docker":
			var d *docker
			if d, err = startDocker(ctx, filepath.Join(o.dir, name), o.images, o.modules...); err == nil {
				r, closeAll = d, d.daemon.Close
			}
		case "runc":
			r, err = newRunc(filepath.Join(o.dir, name), o.images)
		case "husk":
			r, err = newHusk(ctx, o.husk, o.kernel, filepath.Join(o.dir, name), o.images)
		default:
			err = errors.New("no such runtime: docker, runc or husk")
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "beside: without %s: %v\n", name, err)
			continue
		}
		all[name] = r
	}
	if len(all) == 0 {
		return nil, nil, errors.New("no runtime")
	}
	return all, closeAll, nil
}

// runWithDocker runs a command of this host's with a Docker daemon of its own.
func (o *options) runWithDocker(ctx context.Context, argv []string) error {
	if len(argv) == 0 {
		return errors.New("--with-docker wants a command")
	}
	daemon, err := dockerd.Start(ctx, filepath.Join(o.dir, "docker"), o.modules...)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), daemon.Env()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return errors.Join(cmd.Run(), daemon.Close())
}

// oneCommand makes a test of docker run's arguments.
func oneCommand(args []string) test {
	image := slices.IndexFunc(args, func(a string) bool { return !strings.HasPrefix(a, "-") })
	for i := 0; i < len(args); i++ { // past flags that have a value
		if slices.Contains([]string{"-u", "-w", "-e", "-v", "-p", "-m", "--hostname", "--entrypoint", "--tmpfs", "--network", "--name"}, args[i]) {
			i++
		} else if !strings.HasPrefix(args[i], "-") {
			image = i
			break
		}
	}
	return test{name: strings.Join(args, " "), flags: args[:image], image: args[image], argv: args[image+1:]}
}

// runAll runs tests under one runtime. What a runtime cannot be asked for is not among
// the outcomes; what breaks down is said.
func runAll(ctx context.Context, r runtime, list []test, notices io.Writer) map[string]outcome {
	all := map[string]outcome{}
	for _, g := range groups(list) {
		some, err := g.run(ctx, r)
		if err != nil && !errors.Is(err, errOther) {
			fmt.Fprintf(notices, "beside: %v\n", err)
		}
		maps.Copy(all, some)
	}
	return all
}

// record keeps what Docker did.
func record(outcomes map[string]outcome) error {
	for name, o := range outcomes {
		outcomes[name] = o.steady()
	}
	b, err := json.MarshalIndent(outcomes, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(recorded), 0o755); err != nil {
		return err
	}
	return os.WriteFile(recorded, append(b, '\n'), 0o644)
}

// report prints where runtimes differ from Docker, or all that each did.
func report(w io.Writer, list []test, outcomes map[string]map[string]outcome, whole bool) {
	counts := map[string]int{}
	for _, t := range list {
		reference, known := outcomes["docker"][t.name]
		for _, name := range slices.Sorted(maps.Keys(outcomes)) {
			o, ran := outcomes[name][t.name]
			switch {
			case !ran:
			case whole || !known:
				fmt.Fprintf(w, "%s: %s: exit code %d\n%s%s", name, t.name, o.Code, indent("out", o.Stdout), indent("err", o.Stderr))
			case name != "docker":
				for _, line := range differences(reference, o) {
					reason := acceptedReason(t.name, line)
					if name == "husk" && reason != "" {
						reason = " (" + reason + ")"
					} else {
						reason = ""
						counts[name]++
					}
					fmt.Fprintf(w, "%s: %s: %s%s\n", name, t.name, line, reason)
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(outcomes)) {
		fmt.Fprintf(w, "%s: %d of %d tests ran, %d differences that are not accepted\n", name, len(outcomes[name]), len(list), counts[name])
	}
}

func indent(stream, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		fmt.Fprintf(&b, "  %s| %s\n", stream, strings.TrimSuffix(line, "\n"))
	}
	return b.String()
}
