package boot

import "strings"

// AddWords adds words to a kernel's command line: the kernel's own before " -- ", where
// there is one, and those of the first process behind it (kernel
// Documentation/admin-guide/kernel-parameters.rst).
func AddWords(line string, more ...string) string {
	ofKernel, ofInit := CutWords(line)
	for _, m := range more {
		kernel, init := CutWords(m)
		ofKernel, ofInit = strings.TrimSpace(ofKernel+" "+kernel), strings.TrimSpace(ofInit+" "+init)
	}
	if ofInit == "" {
		return ofKernel
	}
	return strings.TrimSpace(ofKernel + " -- " + ofInit)
}

// Word is the value of a kernel's own word "name=value" on a command line, "" where there
// is none. Of several the last counts.
func Word(line, name string) (value string) {
	ofKernel, _ := CutWords(line)
	for _, word := range strings.Fields(ofKernel) {
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			value = v
		}
	}
	return value
}

// CutWords are the kernel's words of a command line, and those of the first process.
func CutWords(line string) (ofKernel, ofInit string) {
	ofKernel, ofInit, _ = strings.Cut(" "+line+" ", " -- ")
	return strings.TrimSpace(ofKernel), strings.TrimSpace(ofInit)
}
