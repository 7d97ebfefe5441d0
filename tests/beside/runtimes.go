package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/huskvm/husk/tests/dockerd"
)

// A container is what a runtime is asked to run.
type container struct {
	image string
	flags []string
	argv  []string // without words: what the image says
	stdin string
}

// A runtime runs a container to its end.
type runtime interface {
	// run runs a container; errOther says that this runtime has no way to.
	run(ctx context.Context, c container) (outcome, error)
}

var errOther = errors.New("this runtime cannot be asked for that")

// limit is how long one container may take. In the lab, seconds are.
const limit = 3 * time.Minute

// unborn is how docker and husk begin, when they have something to say themselves.
var unborn = regexp.MustCompile(`^(docker: |husk: |husk run: |unknown flag|invalid argument|Unable to find image)`)

// finish runs a command to its end.
func finish(ctx context.Context, cmd func(context.Context) *exec.Cmd, stdin string) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := cmd(ctx)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = io.Reader(strings.NewReader(stdin)), &out, &errs
	c.WaitDelay = 5 * time.Second
	if err := c.Run(); err != nil && (ctx.Err() != nil || !errors.As(err, new(*exec.ExitError))) {
		return outcome{}, err
	}
	return outcome{
		Code: c.ProcessState.ExitCode(), Stdout: out.String(), Stderr: errs.String(),
		Unborn: unborn.MatchString(errs.String()) && out.Len() == 0,
	}, nil
}

// docker is a Docker daemon with the images.
type docker struct{ daemon *dockerd.Daemon }

func startDocker(ctx context.Context, dir, archive string, kernels ...string) (*docker, error) {
	daemon, err := dockerd.Start(ctx, dir, kernels...)
	if err != nil {
		return nil, err
	}
	if out, err := daemon.Docker(ctx, "load", "-i", archive).CombinedOutput(); err != nil {
		return nil, errors.Join(err, errors.New(string(out)), daemon.Close())
	}
	return &docker{daemon}, nil
}

func (d *docker) run(ctx context.Context, c container) (outcome, error) {
	return finish(ctx, func(ctx context.Context) *exec.Cmd {
		return d.daemon.Docker(ctx, append(append([]string{"run", "--rm"}, c.flags...), append([]string{c.image}, c.argv...)...)...)
	}, c.stdin)
}

// husk is a husk with the images.
type husk struct {
	program, kernel, dir string
}

// newHusk loads the images into a store in dir.
func newHusk(ctx context.Context, program, kernel, dir, archive string) (*husk, error) {
	h := &husk{program, kernel, dir}
	for _, d := range []string{"run", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	if out, err := h.command(ctx, "load", "-i", archive).CombinedOutput(); err != nil {
		return nil, errors.Join(err, errors.New(string(out)))
	}
	return h, nil
}

func (h *husk) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.program, args...)
	cmd.Env = append(os.Environ(),
		"XDG_RUNTIME_DIR="+filepath.Join(h.dir, "run"), "XDG_DATA_HOME="+filepath.Join(h.dir, "data"))
	return cmd
}

func (h *husk) run(ctx context.Context, c container) (outcome, error) {
	return finish(ctx, func(ctx context.Context) *exec.Cmd {
		args := append([]string{"run", "--rm", "--kernel", h.kernel}, c.flags...)
		return h.command(ctx, append(append(args, c.image), c.argv...)...)
	}, c.stdin)
}
