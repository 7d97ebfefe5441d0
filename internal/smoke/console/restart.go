package console

import (
	"regexp"
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

var (
	kernelEnd = regexp.MustCompile(`^(?:reboot: (?:Restarting system|machine restart)|Kernel panic - not syncing|Rebooting in \d+ seconds` +
		`|(?:kexec(?:_core)?: )?Starting new kernel|sysrq: (?:SysRq : )?Resetting)`)
	kernelStart = regexp.MustCompile(`^Linux version \d`)
	beforeStart = regexp.MustCompile(`^(?:Decompressing Linux|EFI stub: |early console in (?:extract|decompress)_kernel|SeaBIOS \(|BdsDxe: (?:loading|starting) )`)
)

// Line tells whether the line is the first of another start.
func (r *Restart) Line(l Line) bool {
	text := l.Text
	if _, s, rest, ok := FindStamp(text); ok {
		l.Kernel, text = s.Kernel, rest
	}
	before := beforeStart.MatchString(text)
	first := kernelStart.MatchString(text)
	again := r.lived && (before || r.down && (first || l.Kernel >= 0 && l.Kernel+disorder < r.last))
	if again {
		*r = Restart{}
	}
	if l.Kernel >= 0 || first {
		r.lived, r.last = true, l.Kernel
	}
	if kernelEnd.MatchString(text) {
		r.lived, r.down = true, true
	}
	return again
}
