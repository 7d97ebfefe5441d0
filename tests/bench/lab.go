package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/internal/doctor"
	"github.com/huskvm/husk/internal/lab"
)

// here tells whether to measure on this host: in the lab only what this host
// cannot boot.
func (o *options) here() (bool, error) {
	if o.where != "auto" {
		return o.where == "here", nil
	}
	switch v := (doctor.Host{}).Examine().Verdict; v {
	case doctor.OnKVM:
		return true, nil
	case doctor.InLab:
		fmt.Fprintln(os.Stderr, "bench: this host's KVM boots no stock kernel; measuring in the lab")
		return false, nil
	default:
		return false, fmt.Errorf("nothing can be measured here: %s; husk doctor says more", v)
	}
}

// measureInLab runs this program again in the lab, and reads what it says.
func (o *options) measureInLab(ctx context.Context) (*result, error) {
	host := thisHost(false)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argv := []string{
		self, "--where=here", "--in-lab", "--json=-", "--kernel=" + o.kernel,
		"--rounds=" + strconv.Itoa(o.rounds), "--warmup=" + strconv.Itoa(o.warmup), "--timeout=" + o.limit.String(),
		"--what=" + strings.Join(o.what, ","), "--load-time=" + o.loadTime.String(),
	}
	if len(o.only) > 0 {
		argv = append(argv, "--only="+strings.Join(o.only, ","))
	}
	if o.vmlinux != "" {
		argv = append(argv, "--vmlinux="+o.vmlinux)
	}
	for _, c := range commands {
		if path := *o.programs[c.flag]; path != "" {
			argv = append(argv, "--"+c.flag+"="+path)
		}
	}
	l, err := lab.Start(ctx, lab.Options{Notices: os.Stderr, Awake: true})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	var out bytes.Buffer
	code, err := l.Run(ctx, agent.Command{
		Argv: argv, Dir: "/", Env: os.Environ(),
		Stdin: bytes.NewReader(nil), Stdout: &out, Stderr: os.Stderr,
	})
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, fmt.Errorf("the measuring in the lab ended with exit code %d", code)
	}
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return nil, fmt.Errorf("what the lab measured: %w", err)
	}
	r.LabHost = &host
	return &r, nil
}
