package diskboot

import "strings"

// AddConsole makes a serial console, "ttyS0" or "ttyS0,115200", the last one of a
// command line, and so the one that is /dev/console (kernel
// Documentation/admin-guide/serial-console.rst). All other words stay as they
// are, "quiet" and other consoles among them: they are the image's own choice, and
// the kernel writes to every console that is named. One that is named already but
// is not the last is named again, without options: the kernel keeps those of the
// first time.
//
// It goes before "--": what follows that is for the first process.
func AddConsole(commandLine, console string) string {
	kernel, init := split(commandLine)
	device, _, _ := strings.Cut(console, ",")
	last := ""
	for _, w := range kernel {
		if c, ok := strings.CutPrefix(strings.Trim(w, `"`), "console="); ok {
			name, _, _ := strings.Cut(c, ",")
			if last = name; name == device {
				console = device
			}
		}
	}
	if last != device {
		kernel = append(kernel, "console="+console)
	}
	return strings.Join(append(kernel, init...), " ")
}

// hasWord tells whether one of the kernel's own words begins like that.
func hasWord(commandLine, prefix string) bool {
	kernel, _ := split(commandLine)
	for _, w := range kernel {
		if strings.HasPrefix(strings.Trim(w, `"`), prefix) {
			return true
		}
	}
	return false
}

// split cuts a command line into words, as the kernel does: spaces in double
// quotes are part of a word, and "--" ends what is for the kernel.
func split(commandLine string) (kernel, init []string) {
	var words []string
	begin, quoted := -1, false
	for i, c := range []byte(commandLine) {
		switch {
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			if begin >= 0 {
				words = append(words, commandLine[begin:i])
			}
			begin = -1
			continue
		case c == '"':
			quoted = !quoted
		}
		if begin < 0 {
			begin = i
		}
	}
	if begin >= 0 {
		words = append(words, commandLine[begin:])
	}
	for i, w := range words {
		if w == "--" {
			return words[:i:i], words[i:]
		}
	}
	return words, nil
}
