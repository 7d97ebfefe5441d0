package smoke

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroupRoot is where the hierarchy of control groups is, in version 2 (cgroups(7)).
const cgroupRoot = "/sys/fs/cgroup"

// ownCgroup is this process's control group; "/" where there is none of version 2.
func ownCgroup() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "/"
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(path, "\n")
		}
	}
	return "/"
}

// cgroupMemory is what a control group and those that it is in can still take, in bytes,
// with what the kernel would give back first (inactive_file) counted as free; 0 if there is
// no limit. In a container the group may be named as the host has it, and only those above
// it be there: what is missing is passed over.
func cgroupMemory(root, group string) uint64 {
	var least uint64
	for dir := filepath.Clean("/" + group); ; dir = filepath.Dir(dir) {
		limit, limited := cgroupValue(filepath.Join(root, dir, "memory.max"), "")
		used, known := cgroupValue(filepath.Join(root, dir, "memory.current"), "")
		if limited && known {
			cache, _ := cgroupValue(filepath.Join(root, dir, "memory.stat"), "inactive_file ")
			used -= min(cache, used)
			// A full one has room for a page: 0 would be no limit.
			free := max(limit-min(used, limit), 4096)
			if least == 0 || free < least {
				least = free
			}
		}
		if dir == "/" {
			return least
		}
	}
}

// cgroupValue is the number in a file, or that behind a key at the start of a line.
func cgroupValue(file, key string) (value uint64, ok bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if text, found := strings.CutPrefix(line, key); found {
			v, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			return v, err == nil
		}
	}
	return 0, false
}
