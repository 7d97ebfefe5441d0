package console

import (
	"strings"
	"time"
)

// A Restart tells where one kernel's console ends and that of the next begins. The
// kernel's first line alone does not say so, as "dmesg" shows it, too: what stands
// before must be an end, or the line that of a boot loader or decompressor. The zero
// value is for a machine that has not started.
type Restart struct {
	lived bool          // a kernel has spoken
	down  bool          // and has said that it ends
	last  time.Duration // its last stamp
}

// disorder is by how much the stamps of several processors may go back.
const disorder = 100 * time.Millisecond

// What lines begin with that the kernel prints when it ends, and that are printed
// before it starts.
var (
	kernelEnds = []string{
		"reboot: Restarting system", "reboot: machine restart", "Kernel panic - not syncing", "Rebooting in ",
		"kexec_core: Starting new kernel", "kexec: Starting new kernel", "Starting new kernel",
		"sysrq: Resetting", "sysrq: SysRq : Resetting",
	}
	beforeStart = []string{
		"Decompressing Linux", "EFI stub: ", "early console in extract_kernel", "early console in decompress_kernel",
		"SeaBIOS (", "BdsDxe: loading ", "BdsDxe: starting ",
	}
)

// Line tells whether the line is the first of another start.
func (r *Restart) Line(l Line) bool {
	text := l.Text
	if _, s, rest, ok := FindStamp(text); ok {
		l.Kernel, text = s.Kernel, rest
	}
	before := beginsWith(text, beforeStart)
	first := strings.HasPrefix(text, "Linux version ")
	again := r.lived && (before || r.down && (first || l.Kernel >= 0 && l.Kernel+disorder < r.last))
	if again {
		*r = Restart{}
	}
	if l.Kernel >= 0 || first {
		r.lived, r.last = true, l.Kernel
	}
	if beginsWith(text, kernelEnds) {
		r.lived, r.down = true, true
	}
	return again
}

func beginsWith(text string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	return false
}
