package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetStart gives back the pages of husk's own code and constants. Most were
// touched only to get this far; what a running machine needs comes back from the
// page cache as it is touched. That is a quarter of what husk would have resident.
// It is no error if it cannot be done.
func forgetStart() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		if start, end, ok := ownConstant(lines.Text(), self); ok {
			// The pages are clean: nobody can write to such a mapping, nor to the file
			// of a program that runs.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}

// ownConstant tells from a line of /proc/self/maps (proc_pid_maps(5)) whether it is
// of the file self and cannot be written to.
func ownConstant(line, self string) (start, end uintptr, ok bool) {
	var permissions string
	if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &permissions); err != nil {
		return 0, 0, false
	}
	return start, end, strings.HasSuffix(line, " "+self) && strings.HasPrefix(permissions, "r") &&
		!strings.Contains(permissions, "w") && strings.HasSuffix(permissions, "p")
}
