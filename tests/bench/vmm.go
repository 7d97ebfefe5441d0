package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A monitor is a way to boot a kernel that can be measured.
type monitor struct {
	Name    string   `json:"name"`
	Program string   `json:"program"` // its path
	Version string   `json:"version"`
	Argv    []string `json:"argv"` // the exact command
}

// What every monitor boots with.
const (
	memoryMiB   = 256
	commandLine = "console=ttyS0 quiet"
)

// Names that the verdict looks for.
const (
	nameHusk      = "husk"
	nameReference = "QEMU microvm tuned, bzImage"
)

// tunedMicrovm is the microvm without what a Linux guest does not need
// (DESIGN §4): the one to beat.
const tunedMicrovm = "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=on"

// A payload is what is booted.
type payload struct {
	Kernel  string // bzImage
	Vmlinux string // the same as an ELF file, "" if there is none
	Initrd  string
}

// monitors are the known ones, each with the program that is looked for and
// how it boots the payload. Those whose program or kernel is not there are left
// out.
func monitors(programs map[string]string, p payload, dir string) ([]monitor, error) {
	firecracker := ""
	if p.Vmlinux != "" {
		firecracker = filepath.Join(dir, "firecracker.json")
		if err := os.WriteFile(firecracker, firecrackerConfig(p), 0o600); err != nil {
			return nil, err
		}
	}
	mem := strconv.Itoa(memoryMiB)
	qemu := func(machine, kernel string) []string {
		return []string{
			"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
			"-M", machine, "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", mem + "M",
			"-kernel", kernel, "-initrd", p.Initrd, "-append", commandLine,
		}
	}
	all := []struct {
		name, program string
		args          []string
	}{
		{nameHusk, "husk", []string{
			"boot", "--accel=kvm", "-k", p.Kernel, "-i", p.Initrd, "--cmdline", commandLine,
			"-m", mem + "M", "-c", "1", "--serial", "stdio",
		}},
		{"kvmtool", "lkvm", []string{
			"run", "--nodefaults", "--console", "serial", "-c", "1", "-m", mem,
			"-k", p.Kernel, "-i", p.Initrd, "-p", commandLine,
		}},
		{"gokvm", "gokvm", []string{
			"boot", "-k", p.Kernel, "-i", p.Initrd, "-p", commandLine, "-c", "1", "-m", mem + "M",
		}},
		{"QEMU q35", "qemu", qemu("q35", p.Kernel)},
		{nameReference, "qemu", qemu(tunedMicrovm, p.Kernel)},
		{"QEMU microvm tuned, ELF", "qemu", qemu(tunedMicrovm, p.Vmlinux)},
		{"Firecracker", "firecracker", []string{"--no-api", "--config-file", firecracker}},
		{"Cloud Hypervisor", "cloud-hypervisor", []string{
			"--kernel", p.Vmlinux, "--initramfs", p.Initrd, "--cmdline", commandLine,
			"--cpus", "boot=1", "--memory", "size=" + mem + "M", "--serial", "tty", "--console", "off",
		}},
	}
	var found []monitor
	for _, m := range all {
		program := programs[m.program]
		if program == "" || slices.Contains(m.args, "") { // without its file
			continue
		}
		found = append(found, monitor{
			Name: m.name, Program: program, Version: programVersion(m.program, program),
			Argv: append([]string{program}, m.args...),
		})
	}
	return found, nil
}

// chosen are the monitors with one of the words in their names; all without words.
func chosen(all []monitor, words []string) []monitor {
	if len(words) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(m monitor) bool {
		return !slices.ContainsFunc(words, func(word string) bool {
			return strings.Contains(strings.ToLower(m.Name), strings.ToLower(word))
		})
	})
}

// firecrackerConfig is Firecracker's boot as a file: its docs/getting-started.md.
func firecrackerConfig(p payload) []byte {
	return fmt.Appendf(nil, `{"boot-source": {"kernel_image_path": %q, "initrd_path": %q, "boot_args": %q},
"drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": %d}}
`, p.Vmlinux, p.Initrd, commandLine, memoryMiB)
}

// commands are the programs looked for, with their names on PATH.
var commands = []struct{ flag, file string }{
	{"husk", "husk"},
	{"lkvm", "lkvm"},
	{"gokvm", "gokvm"},
	{"qemu", "qemu-system-x86_64"},
	{"firecracker", "firecracker"},
	{"cloud-hypervisor", "cloud-hypervisor"},
}

// versionArgs is how each program is asked for its version.
var versionArgs = map[string][]string{"husk": {"version"}, "lkvm": {"version"}, "gokvm": nil}

// programVersion is the first line of what a program says of itself, "" if it
// says nothing.
func programVersion(name, program string) string {
	args, listed := versionArgs[name]
	if !listed {
		args = []string{"--version"}
	}
	if args == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
