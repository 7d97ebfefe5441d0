package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// FreeMemory is what this process's group and those that it is in can still take, in
// bytes, with what the kernel would give back first (inactive_file) counted as free; 0 if
// there is no limit. In a container the group may be named as the host has it, and only
// those above it be there: what is missing is passed over.
func (h Hierarchy) FreeMemory() uint64 {
	if h.Root == "" {
		return 0
	}
	var least uint64
	for group := filepath.Clean("/" + h.Own); ; group = filepath.Dir(group) {
		dir := h.dir(group)
		limit, limited := value(filepath.Join(dir, "memory.max"), "")
		used, known := value(filepath.Join(dir, "memory.current"), "")
		if limited && known {
			cache, _ := value(filepath.Join(dir, "memory.stat"), "inactive_file ")
			used -= min(cache, used)
			// A full one has room for a page: 0 would be no limit.
			free := max(limit-min(used, limit), 4096)
			if least == 0 || free < least {
				least = free
			}
		}
		if group == "/" {
			return least
		}
	}
}

// value is the number in a file, or that behind a key at the start of a line.
func value(file, key string) (n uint64, ok bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if text, found := strings.CutPrefix(line, key); found {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
