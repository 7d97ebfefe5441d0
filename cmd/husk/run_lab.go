package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/container"
)

// checkForLab refuses what the lab cannot do.
func (r *containerRun) checkForLab() error {
	var refused error
	switch {
	case r.flags.detach:
		refused = errors.New("-d is not possible in the lab, which ends with husk, and the machine with it")
	case r.flags.cidFile != "":
		refused = errors.New("--cidfile is not possible in the lab, whose machines have no ID here; leave it out")
	}
	if refused != nil && r.noKVM != nil {
		return fmt.Errorf("%w; and %w. husk doctor says what to do for KVM", r.noKVM, refused)
	}
	return refused
}

// inLab runs the machine by a husk in the lab, for hosts whose KVM boots no stock kernel.
// The image and its root are here already; the lab has this host's files, and can write to
// volumes and to disks.
func (r *containerRun) inLab(ctx context.Context, plan *container.Plan) (int, error) {
	if r.noKVM != nil {
		fmt.Fprintf(r.env.stderr, "husk: %v; running in the lab, which is slow (husk doctor says more)\n", r.noKVM)
	}
	if len(r.flags.Publish) > 0 || r.flags.PublishAll {
		fmt.Fprintln(r.env.stderr, "husk: in the lab, published ports are the lab's own: this host does not see them")
	}
	var outputs []string
	for _, v := range plan.Volumes {
		if v.ReadOnly {
			continue
		}
		dir := v.Host
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			dir = filepath.Dir(dir)
		}
		outputs = append(outputs, dir)
	}
	args, err := r.labArgs(plan)
	if err != nil {
		return 0, err
	}
	return r.env.lab(ctx, args, outputs...)
}

// labArgs are the arguments for husk in the lab: the same flags, but for those that have done
// their work, and absolute paths where the lab's own files are concerned.
func (r *containerRun) labArgs(plan *container.Plan) ([]string, error) {
	args := []string{"run"}
	dir, err := filepath.Abs(".")
	if err != nil {
		return nil, err
	}
	r.fs.Visit(func(flag *pflag.Flag) {
		switch flag.Name {
		case "accel", "kernel", "modules", "pull", "platform", "mirror", "insecure", "quiet":
			return
		}
		if _, isForeign := flag.Value.(foreignFlag); isForeign {
			return
		}
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			if flag.Name == "disk" {
				v = absoluteDisk(v, dir)
			}
			args = append(args, "--"+flag.Name+"="+v)
		}
	})
	args = append(args, "--accel=kvm", "--pull=never", "--kernel="+r.flags.kernel)
	if r.flags.modules != "" {
		args = append(args, "--modules="+r.flags.modules)
	}
	args = append(args, "--", plan.Image.ID)
	return append(args, r.flags.Args...), nil
}
