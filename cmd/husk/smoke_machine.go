package main

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/kstack"
	"github.com/huskvm/husk/internal/smoke/process"
	"github.com/huskvm/husk/vmm"
)

// machineName is the verb that husk smoke runs a machine by.
const machineName = "smoke-machine"

func smokeMachineVerb() verb {
	return verb{
		name:   machineName,
		short:  "run one machine of husk smoke (started by husk itself)",
		hidden: true,
		define: func(fs *pflag.FlagSet) runner {
			f := &bootFlags{}
			f.define(fs)
			reboots := fs.Int("reboots", 0, "how many reboots are allowed")
			symbols := fs.StringArray("symbols", nil, "vmlinux or System.map")
			return func(ctx context.Context, e *env, _ []string) (int, error) {
				socket := os.NewFile(process.FD, "smoke test")
				defer socket.Close()
				var files openFiles
				defer func() { files.close() }()
				process.Serve(ctx, socket, *reboots, func(serial *vmm.Serial) (process.VM, error) {
					files.close()
					cfg, opened, err := f.config(e, fs)
					files = opened
					if err != nil {
						return nil, err
					}
					cfg.Serial = serial
					cfg.Log = newLogger(e.stderr, f.logLevel, f.logFormat)
					vm, err := vmm.New(cfg)
					if err != nil {
						return nil, err
					}
					forgetStart()
					return vm, nil
				}, func() (process.Kernel, error) {
					if f.kernel == "" && len(*symbols) == 0 {
						return nil, errors.New("the kernel is the disk's own: --symbols names its places")
					}
					return openKernel(*symbols, f.kernel)
				})
				return exitOK, nil
			}
		},
	}
}

// openKernel opens what names a kernel's places: what the user has named, and the
// kernel itself.
func openKernel(symbols []string, kernel string) (process.Kernel, error) {
	paths := slices.Clone(symbols)
	if kernel != "" {
		paths = append(paths, kernel)
	}
	k, err := kstack.OpenFiles(paths...)
	if err != nil {
		return nil, err
	}
	return k, nil
}
