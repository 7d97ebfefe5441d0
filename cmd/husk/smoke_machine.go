package main

import (
	"context"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/devices/disk"
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
				}, func() (process.Kernel, error) { return f.symbols(*symbols) })
				return exitOK, nil
			}
		},
	}
}

// symbols opens what names a kernel's places: what the user has named, and the kernel
// itself, or that of the first disk.
func (f *bootFlags) symbols(named []string) (process.Kernel, error) {
	var sources []boot.Source
	for _, path := range append(slices.Clone(named), f.kernel) {
		if path == "" {
			continue
		}
		source, closer, err := vmm.OpenSource(path)
		if err != nil {
			return nil, inputError{"symbols", err}
		}
		defer closer.Close()
		sources = append(sources, source)
	}
	if f.kernel == "" && len(f.disks) > 0 {
		spec, err := disk.ParseSpec(f.disks[0])
		if err != nil {
			return nil, err
		}
		image, err := vmm.LookAtDisk(spec, nil)
		if err != nil {
			return nil, err
		}
		defer image.Close()
		sources = append(sources, image.Kernel)
	}
	k, err := kstack.Open(sources...)
	if err != nil {
		return nil, err
	}
	return k, nil
}
