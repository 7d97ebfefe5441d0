package stage

import (
	"regexp"
	"strings"

	"github.com/huskvm/husk/internal/smoke/console"
)

// A sign is a line that is printed in a stage.
type sign struct {
	stage Stage
	line  *regexp.Regexp
}

func shape(expr string) *regexp.Regexp { return regexp.MustCompile("^(?:" + expr + ")") }

// signs are the kernel's lines, and those of programs that say where they are. The
// kernel has passed a stage when it speaks of a later one.
var signs = []sign{
	{Init, shape(`Run /(?:sbin|etc|bin|usr)/\S+ as init process|systemd\[1\]: (?:Queued start job|Hostname set to|Set hostname to)|INIT: version|OpenRC `)},
	{RootMounted, shape(`VFS: Mounted root \(|devtmpfs: mounted|systemd\[1\]: Switching root|(?:EXT4-fs|XFS|BTRFS|F2FS-fs) .*(?:mounted filesystem|[mM]ounting|first mount)|erofs: .*mounted`)},
	{Initramfs, shape(`Trying to unpack rootfs image|Unpacking initramfs|Freeing initrd memory|Run \S+ as init process`)},
	{Drivers, shape(`devtmpfs: initialized|PCI: Using |NET: Registered (?:PF_INET |protocol family 2$)|clocksource: Switched|Serial: 8250`)},
	{SMP, shape(`smp: Bring|smp: Brought|smpboot: (?:Total of|CPU0: )|x86: Booting SMP`)},
	{Memory, shape(`Memory: \d+K/\d+K available`)},
	{FirstPrintk, shape(`Linux version \d`)},
	{Decompress, shape(`Decompressing Linux|early console in (?:extract|decompress)_kernel|EFI stub: `)},
}

var (
	commandLine = shape(`(?:Kernel c|C)ommand line: `)
	// beforeKernel is what firmware and boot loaders print, without a stamp.
	beforeKernel = shape(`BdsDxe: |SeaBIOS|iPXE|GRUB|Welcome to GRUB|Booting |Loading |Starting kernel|Press |UEFI |Probing EDD|No EFI environment|KASLR `)
	// fromInitramfs is what the first process of an initramfs prints, as initramfs-tools,
	// dracut, mkinitcpio and mkinitfs make them.
	fromInitramfs = shape(`Loading, please wait|Starting (?:systemd-udevd|version)|Begin: |done\.|Scanning for |fsck |\S+: clean,|:: |Alpine Init |Gave up waiting|ALERT!` +
		`| - |Missing modules|\(initramfs\)|BusyBox |Enter 'help'|dracut|Warning: |mount: |modprobe: |cryptsetup: |>> |<<< NixOS Stage 1`)
)

// Line takes the next line of the console.
func (t *Tracker) Line(l console.Line) {
	if t.restart.Line(l) {
		*t = Tracker{restart: t.restart}
		t.Reach(Firmware, l.Start)
	}
	text, kernel := l.Text, l.Kernel >= 0
	if _, _, rest, ok := console.FindStamp(text); ok {
		text, kernel = rest, true
	}
	if s, ok := t.sign(text); ok {
		t.Reach(s, l.Start)
		return
	}
	switch {
	case kernel:
		t.Reach(FirstPrintk, l.Start)
	case t.userland(text):
		t.Reach(Init, l.Start)
	}
}

// sign is the stage that a line is printed in, if it says.
func (t *Tracker) sign(text string) (Stage, bool) {
	if i := strings.Index(text, "ommand line: "); i >= 0 && commandLine.MatchString(text) {
		t.root = no
		if strings.Contains(text[i:], " root=") {
			t.root = yes
		}
		return FirstPrintk, true
	}
	if strings.HasPrefix(text, "systemd[1]: ") && strings.Contains(text, "running in system mode") {
		// It says so in an initramfs, too, and then that it is there.
		if t.Reached() == RootMounted {
			return Init, true
		}
		t.systemd = true
		return Initramfs, true
	}
	if strings.HasPrefix(text, "systemd[1]: Running in init") {
		t.systemd, t.initrd = false, true
		return Initramfs, true
	}
	for _, s := range signs {
		if !s.line.MatchString(text) {
			continue
		}
		switch {
		case s.stage == Init && t.initrd && strings.HasPrefix(text, "systemd["):
			return Initramfs, true // its own jobs
		case s.stage == RootMounted && strings.HasPrefix(text, "systemd["):
			t.initrd = false
		case s.stage == Initramfs && t.root == no && strings.HasPrefix(text, "Run "):
			return Init, true // there is no other
		}
		return s.stage, true
	}
	return "", false
}

// userland tells that a line without a stamp is that of the first process of a
// machine that may have no other: one whose command line names no root, or, with a
// quiet kernel, is not known, and that does not print what an initramfs prints.
func (t *Tracker) userland(text string) bool {
	if strings.TrimSpace(text) == "" || t.initrd || beforeKernel.MatchString(text) || fromInitramfs.MatchString(text) {
		return false
	}
	switch t.root {
	case yes:
		return false
	case no:
		return t.Reached() == Initramfs
	}
	return true
}
