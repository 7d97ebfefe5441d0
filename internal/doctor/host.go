package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/hostkernel"
	"github.com/huskvm/husk/internal/lab"
)

const mib = 1 << 20

// read is the trimmed content of a file that is a line or a table; "" where it
// cannot be read.
func (h Host) read(path string) string {
	b, err := os.ReadFile(h.path(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// hugePages looks at transparent huge pages, husk's default for guest RAM.
func (h Host) hugePages() Check {
	const name = "huge pages"
	mode := h.read("/sys/kernel/mm/transparent_hugepage/enabled")
	// The line is "always [madvise] never", with the mode in force in brackets.
	_, mode, _ = strings.Cut(mode, "[")
	mode, _, _ = strings.Cut(mode, "]")
	switch mode {
	case "always", "madvise":
		return Check{Name: name, Status: OK, Found: "transparent huge pages: " + mode}
	case "never":
		return Check{
			name, Note, "transparent huge pages are off: a guest's memory costs many more page faults",
			"echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
		}
	}
	return Check{Name: name, Status: Note, Found: "this kernel has no transparent huge pages: a guest's memory costs many more page faults"}
}

// hugetlb counts the reserved huge pages that --memory-backing hugetlb uses.
func (h Host) hugetlb() Check {
	const name, pages = "hugetlb", "/sys/kernel/mm/hugepages/hugepages-2048kB/"
	total, err := strconv.Atoi(h.read(pages + "nr_hugepages"))
	if err != nil {
		return Check{Name: name, Status: Note, Found: "this kernel has no reserved huge pages of 2 MiB (--memory-backing hugetlb)"}
	}
	free, _ := strconv.Atoi(h.read(pages + "free_hugepages"))
	if total == 0 {
		return Check{
			name, Note, "no huge pages are reserved (only --memory-backing hugetlb needs them)",
			"echo 256 | sudo tee " + pages + "nr_hugepages reserves 512 MiB",
		}
	}
	return Check{Name: name, Status: OK, Found: fmt.Sprintf("%d of %d reserved huge pages of 2 MiB are free", free, total)}
}

// memory says how much RAM guests could have.
func (h Host) memory() Check {
	const name, enough = "memory", 1024
	for line := range strings.Lines(h.read("/proc/meminfo")) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 0 {
			continue
		}
		available := kib * 1024 / mib
		if available < enough {
			return Check{name, Note, fmt.Sprintf("%d MiB are available", available), "give guests less with -m, or free some"}
		}
		return Check{Name: name, Status: OK, Found: fmt.Sprintf("%d MiB are available", available)}
	}
	return Check{Name: name, Status: Note, Found: "/proc/meminfo does not say how much is available"}
}

// memlock looks at the limit for locked memory, which io_uring and vfio count
// against; guest RAM is not locked.
func (h Host) memlock() Check {
	return limit("memlock", unix.RLIMIT_MEMLOCK, 8*mib, "bytes of locked memory", "ulimit -l unlimited, or LimitMEMLOCK= in a systemd unit")
}

func (h Host) openFiles() Check {
	return limit("open files", unix.RLIMIT_NOFILE, 1024, "open files", "ulimit -n 1024")
}

func limit(name string, resource int, enough uint64, what, remedy string) Check {
	var l unix.Rlimit
	switch err := unix.Getrlimit(resource, &l); {
	case err != nil:
		return Check{Name: name, Status: Note, Found: err.Error()}
	case l.Cur == unix.RLIM_INFINITY:
		return Check{Name: name, Status: OK, Found: "no limit"}
	case l.Cur < enough:
		return Check{name, Note, fmt.Sprintf("at most %d %s", l.Cur, what), remedy}
	default:
		return Check{Name: name, Status: OK, Found: fmt.Sprintf("at most %d %s", l.Cur, what)}
	}
}

// device tries to open a device that some guests' devices use.
func (h Host) device(name, path, use, load string) Check {
	f, err := os.OpenFile(h.path(path), os.O_RDWR, 0)
	switch {
	case err == nil:
		_ = f.Close()
		return Check{Name: name, Status: OK, Found: path + " opens"}
	case errors.Is(err, fs.ErrPermission):
		return Check{name, Note, path + " is there, but this user may not open it (" + use + ")", "run husk as root where it is needed, or change its group"}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return Check{name, Note, path + " is not there (" + use + ")", "sudo " + load}
	default:
		return Check{Name: name, Status: Note, Found: fmt.Sprintf("%v (%s)", err, use)}
	}
}

// kernels lists the kernels that husk boot finds by itself.
func (h Host) kernels() Check {
	const name = "kernels"
	kernels, err := hostkernel.List(h.path(hostkernel.Dir))
	if err == nil {
		_, err = hostkernel.Newest(h.path(hostkernel.Dir))
	}
	if err != nil {
		found, remedy, _ := strings.Cut(err.Error(), "; ")
		return Check{name, Note, found, remedy}
	}
	var names []string
	for _, k := range kernels {
		n := k.Release
		if k.Err != nil {
			n += " (not readable)"
		}
		names = append(names, n)
	}
	return Check{Name: name, Status: OK, Found: hostkernel.Dir + ": " + strings.Join(names, ", ")}
}

// lab looks for what husk lab runs on.
func (h Host) lab() Check {
	available := h.Lab
	if available == nil {
		available = lab.Available
	}
	qemu, kernel, err := available()
	if err != nil {
		found, remedy, _ := strings.Cut(strings.TrimPrefix(err.Error(), lab.ErrMissing.Error()+": "), ": ")
		return Check{"lab", Note, found, remedy}
	}
	return Check{Name: "lab", Status: OK, Found: qemu + " with kernel " + kernel}
}
