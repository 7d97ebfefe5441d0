package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/guestinit/inroot"
)

// devLinks are Docker's in /dev.
var devLinks = [][2]string{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"core", "/proc/kcore"},
	{"ptmx", "pts/ptmx"}, // in place of a device for the same
}

// furnishDev makes the links in /dev.
func furnishDev(root *inroot.Root) error {
	dev, err := root.Folder("/dev")
	if err != nil {
		return err
	}
	defer dev.Close()
	for _, l := range devLinks {
		name, target := l[0], l[1]
		err := unix.Unlinkat(int(dev.Fd()), name, 0)
		if err == nil || errors.Is(err, unix.ENOENT) {
			err = unix.Symlinkat(target, int(dev.Fd()), name)
		}
		if err != nil {
			return &os.PathError{Op: "link", Path: name, Err: err}
		}
	}
	return nil
}

// linkMtab makes /etc/mtab, for old programs, where the image has none.
func linkMtab(root *inroot.Root) error {
	etc, err := root.Folder("/etc")
	if err != nil {
		return err
	}
	defer etc.Close()
	err = unix.Symlinkat("/proc/mounts", int(etc.Fd()), "mtab")
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// mountFS mounts a file system, and names one that the kernel lacks.
func mountFS(source, fstype, target string, flags uintptr, options string) error {
	err := unix.Mount(source, target, fstype, flags, options)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("the kernel has no %s (CONFIG_%s): is its module missing?", fstype, configOf(fstype))
	}
	return err
}

// configOf is the kernel's option for a file system.
func configOf(fstype string) string {
	switch fstype {
	case "virtiofs":
		return "VIRTIO_FS"
	case "overlay":
		return "OVERLAY_FS"
	case "cgroup2":
		return "CGROUPS"
	case "devpts":
		return "UNIX98_PTYS"
	case "mqueue":
		return "POSIX_MQUEUE"
	case "sysfs", "tmpfs", "devtmpfs":
		return strings.ToUpper(fstype)
	}
	return strings.ToUpper(fstype) + "_FS"
}
