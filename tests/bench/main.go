// Command bench boots the same kernel with husk and with every other monitor
// found, and tells what each needs to get to the first process: exits, time,
// memory; and how fast its disk and its network are. Figures first, no judgement: nothing it measures makes it fail.
//
//	go run ./tests/bench --rounds 5 --json bench.json
//	go run ./tests/bench --what disk,net --lkvm PATH
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
	if len(os.Args) > 1 && os.Args[1] == guestVerb {
		if err := guestMain(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
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
		Kernel: o.kernel, Cmdline: commandLine, Memory: memoryMiB, Rounds: o.rounds, LoadSeconds: o.loadTime.Seconds(),
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
	if o.measures(whatBoot) {
		if err := o.measureBoots(ctx, r, programs, p, dir); err != nil {
			return nil, err
		}
	}
	if o.measures(whatDisk) || o.measures(whatNet) {
		if err := o.measureIO(ctx, r, programs, p, dir); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (o *options) measureBoots(ctx context.Context, r *result, programs map[string]string, p payload, dir string) (err error) {
	if r.Monitors, err = monitors(programs, p, dir); err != nil {
		return err
	}
	if r.Monitors = chosen(r.Monitors, o.only); len(r.Monitors) == 0 {
		return fmt.Errorf("--only %q: no monitor that was found has such a name", o.only)
	}
	var trace tracer
	if os.Geteuid() == 0 {
		if err := ktrace.Mount(); err != nil {
			return err
		}
		trace = startTrace
	} else {
		fmt.Fprintln(os.Stderr, "bench: exits and CPU time are counted for root alone; run it as root for them")
	}
	return o.eachRound(ctx, len(r.Monitors), func(round, i int) {
		s := take(r.Monitors[i], round, trace, o.limit)
		progress(os.Stderr, s)
		if round >= 1 {
			r.Samples = append(r.Samples, s)
		}
	})
}

func (o *options) measureIO(ctx context.Context, r *result, programs map[string]string, boot payload, dir string) error {
	p, clean, err := o.prepareIO(dir, boot.Kernel)
	if err != nil {
		return err
	}
	defer clean()
	if r.IOMonitors = chosen(ioMonitors(programs, p), o.only); len(r.IOMonitors) == 0 {
		return fmt.Errorf("--only %q: no monitor that was found has such a name", o.only)
	}
	if os.Geteuid() == 0 {
		if err := ktrace.Mount(); err != nil {
			return err
		}
	}
	return o.eachRound(ctx, len(r.IOMonitors), func(round, i int) {
		s := o.takeIO(r.IOMonitors[i], round, p.Net)
		progressIO(os.Stderr, s)
		if round >= 1 {
			r.IOSamples = append(r.IOSamples, s)
		}
	})
}

// eachRound calls f for each of n monitors in every round, in random order.
func (o *options) eachRound(ctx context.Context, n int, f func(round, i int)) error {
	for round := 1 - o.warmup; round <= o.rounds; round++ {
		for _, i := range rand.Perm(n) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			f(round, i)
		}
	}
	return nil
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

// progressIO says what the loads of a boot did.
func progressIO(w io.Writer, s ioSample) {
	for _, l := range s.Loads {
		fmt.Fprintf(w, "round %d: %s: %s: %.0f/s, %.1f MB/s, %.2f exits each\n",
			s.Round, s.Monitor, l.Name, l.Rate(), l.Throughput()/1e6, float64(l.KVM["exits"])/float64(l.Ops))
	}
	if s.Error != "" {
		fmt.Fprintf(w, "round %d: %s: %s\n", s.Round, s.Monitor, s.Error)
	}
}

func (r *result) writeJSON(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(r)
}
