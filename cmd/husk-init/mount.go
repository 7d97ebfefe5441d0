package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A mount is one line of an fstab.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	options                string
	optional               bool // a kernel without this file system will do
}

const locked = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// early is what husk-init itself needs.
func early() []mount {
	return []mount{
		{"proc", "/proc", "proc", locked, "", false},
		{"sysfs", "/sys", "sysfs", locked, "", false},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755", false},
	}
}

// late is what programs expect besides.
func late() []mount {
	return []mount{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5", false},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", false},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755", false},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", locked, "", true},
		{"debugfs", "/sys/kernel/debug", "debugfs", locked, "", true},
		{"tracefs", "/sys/kernel/tracing", "tracefs", locked, "", true},
		{"hugetlbfs", "/dev/hugepages", "hugetlbfs", unix.MS_NOSUID | unix.MS_NODEV, "", true},
	}
}

// mountAll mounts a list below root.
func mountAll(root string, list []mount) error {
	for _, m := range list {
		target := filepath.Join(root, m.target)
		err := os.MkdirAll(target, 0o755)
		if err == nil {
			err = unix.Mount(m.source, target, m.fstype, m.flags, m.options)
		}
		if err == nil || m.optional {
			continue
		}
		if errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("mount %s: the kernel has no %s: is its module missing?", m.target, m.fstype)
		}
		return fmt.Errorf("mount %s (%s): %w", m.target, m.fstype, err)
	}
	return nil
}
