package smoke

import (
	"strconv"
	"strings"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/smoke/detect"
)

// BootFlags are the flags of husk boot that make the case's machine. more goes on the
// kernel's command line too.
func (c Case) BootFlags(more string) []string {
	c = c.withDefaults()
	var flags []string
	if c.Kernel != "" {
		flags = append(flags, "--kernel="+c.Kernel)
	}
	for _, i := range c.Initrds {
		flags = append(flags, "--initrd="+i)
	}
	flags = append(flags, "--cpus="+strconv.Itoa(c.CPUs), "--memory="+c.Memory)
	for _, d := range c.Disks {
		flags = append(flags, "--disk="+throwaway(d))
	}
	if c.CommandLine != "" {
		flags = append(flags, "--cmdline="+strings.TrimSpace(c.CommandLine+" "+more))
	} else {
		line := strings.TrimSpace(c.Append + " " + more)
		for _, option := range guestDefaults {
			name, _, _ := strings.Cut(option, "=")
			if !strings.Contains(" "+line, " "+name+"=") {
				line = strings.TrimSpace(line + " " + option)
			}
		}
		flags = append(flags, "--append="+line)
	}
	// A guest's own exit code is worth having.
	return append(append(flags, "--debug-exit"), c.Boot...)
}

// throwaway has what is written to a disk thrown away, unless it says otherwise: a test
// leaves its image as it was, and cases may share one.
func throwaway(text string) string {
	spec, err := disk.ParseSpec(text)
	if err != nil || spec.ReadOnly || spec.Snapshot || strings.Contains(text, ",snapshot=") {
		return text
	}
	return text + ",snapshot=on"
}

// detectors reads what is off and what is allowed.
func (c *Case) detectors() (detect.Config, error) {
	// The machine counts reboots. This is for kernels that start others without one.
	config := detect.Config{RebootLoop: c.Reboots + 2}
	for _, text := range c.NoDetect {
		kind, err := detect.ParseKind(text)
		if err != nil {
			return config, err
		}
		config.Off = append(config.Off, kind)
	}
	for _, text := range c.Allow {
		allow, err := detect.ParseAllow(text)
		if err != nil {
			return config, err
		}
		config.Allow = append(config.Allow, allow)
	}
	return config, nil
}
