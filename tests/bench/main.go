// Command bench boots the same kernel with husk and with every other monitor
// found, and tells what each needs to get to the first process: exits, time,
// memory. Figures first, no judgement: nothing it measures makes it fail.
//
//	go run ./tests/bench --rounds 5 --json bench.json
//
// Where the host's KVM cannot boot a stock kernel, all of it runs in the lab.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/tests/bench/guest"
	"github.com/huskvm/husk/tests/bench/ktrace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	here, err := o.here()
	if err != nil {
		return err
	}
	var r *result
	if here {
		r, err = o.measure(ctx)
	} else {
		r, err = o.measureInLab(ctx)
	}
	if err != nil {
		return err
	}
	if o.json == "-" {
		return r.writeJSON(os.Stdout)
	}
	if err := r.write(os.Stdout); err != nil || o.json == "" {
		return err
	}
	f, err := os.Create(o.json)
	if err != nil {
		return err
	}
	return errors.Join(r.writeJSON(f), f.Close())
}

// measure boots everything here.
func (o *options) measure(ctx context.Context) (*result, error) {
	dir, err := os.MkdirTemp("", "husk-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p, err := o.prepare(dir)
	if err != nil {
		return nil, err
	}
	programs := map[string]string{}
	r := &result{
		Taken: time.Now(), Host: thisHost(o.inLab),
		Kernel: o.kernel, Cmdline: commandLine, Memory: memoryMiB, Rounds: o.rounds,
	}
	for _, c := range commands {
		programs[c.flag] = *o.programs[c.flag]
		if programs[c.flag] == "" {
			r.Skipped = append(r.Skipped, c.file)
		}
	}
	// husk is built where its user works, which the lab shares without caching
	// it; the other programs lie where files are cached.
	if husk := programs["husk"]; husk != "" {
		if programs["husk"], err = copyInto(dir, "husk", husk, 0o700); err != nil {
			return nil, err
		}
	}
	if p.Vmlinux == "" {
		r.Skipped = append(r.Skipped, "vmlinux")
	}
	if r.Monitors, err = monitors(programs, p, dir); err != nil {
		return nil, err
	}
	if r.Monitors = chosen(r.Monitors, o.only); len(r.Monitors) == 0 {
		return nil, fmt.Errorf("--only %q: no monitor that was found has such a name", o.only)
	}
	var trace tracer
	if os.Geteuid() == 0 {
		if err := ktrace.Mount(); err != nil {
			return nil, err
		}
		trace = startTrace
	} else {
		fmt.Fprintln(os.Stderr, "bench: exits and CPU time are counted for root alone; run it as root for them")
	}
	for round := 1 - o.warmup; round <= o.rounds; round++ {
		for _, i := range rand.Perm(len(r.Monitors)) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			s := take(r.Monitors[i], round, trace, o.limit)
			progress(os.Stderr, s)
			if round >= 1 {
				r.Samples = append(r.Samples, s)
			}
		}
	}
	return r, nil
}

// prepare lays out what is booted. The kernels are copied: in the lab the
// host's files come over a network file system.
func (o *options) prepare(dir string) (payload, error) {
	p := payload{Initrd: filepath.Join(dir, "initrd")}
	initrd, err := guest.Initramfs()
	if err != nil {
		return p, err
	}
	if err := os.WriteFile(p.Initrd, initrd, 0o600); err != nil {
		return p, err
	}
	p.Kernel, err = copyInto(dir, "vmlinuz", o.kernel, 0o600)
	if err != nil || o.vmlinux == "" {
		return p, err
	}
	p.Vmlinux, err = copyInto(dir, "vmlinux", o.vmlinux, 0o600)
	return p, err
}

func copyInto(dir, name, from string, mode os.FileMode) (string, error) {
	b, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, b, mode)
}

// progress says what a boot was like, while the others are to come.
func progress(w io.Writer, s sample) {
	if s.Error != "" {
		fmt.Fprintf(w, "round %d: %s: %s\n", s.Round, s.Monitor, s.Error)
		return
	}
	exits, _ := s.exits()
	fmt.Fprintf(w, "round %d: %s: %.2f s, %.0f exits\n", s.Round, s.Monitor, s.SecondsToInit, exits)
}

func (r *result) writeJSON(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(r)
}
