package smoke

import (
	"slices"
	"strconv"
	"strings"

	"github.com/huskvm/husk/boot"
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
		flags = append(flags, "--cmdline="+boot.AddWords(c.CommandLine, more))
	} else {
		flags = append(flags, "--append="+c.addDefaults(boot.AddWords(c.Append, more)))
	}
	// A guest's own exit code is worth having.
	return append(append(flags, "--debug-exit"), c.Boot...)
}

// slowDefault keeps a guest on a software CPU from taking a host that is slow for a
// lockup of its own. 60 seconds are the most that the kernel takes.
const slowDefault = "watchdog_thresh=60"

// addDefaults adds guestDefaults to a kernel's command line.
func (c *Case) addDefaults(line string) string {
	ofKernel, _ := boot.CutWords(line)
	defaults := guestDefaults
	if c.Slowness > 1 {
		defaults = append(slices.Clone(defaults), slowDefault)
	}
	for _, option := range defaults {
		name, _, _ := strings.Cut(option, "=")
		if !strings.Contains(" "+ofKernel, " "+name+"=") {
			line = boot.AddWords(line, option)
		}
	}
	return line
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
