package share

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// checkName refuses what is not the name of an entry in a folder. Everything else is
// one to openat2 and the like, which do not look further than that.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return unix.EINVAL
	case len(name) > unix.NAME_MAX:
		return unix.ENAMETOOLONG
	case strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	}
	return nil
}

// openBelow opens a name in a folder: that entry and nothing else. A symbolic link is
// not followed (ELOOP, or the link itself with O_PATH).
func openBelow(dir int, name string, flags uint64, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC, Mode: uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		// EAGAIN is said of a race with a rename, where the name has "..": not of ours.
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// reopen opens the file of a descriptor once more, with other flags. It is not for
// symbolic links.
//
// A file of /proc or /sys can be a regular one whose reader waits for ever, as
// /proc/kmsg. No reader of ours does: they cannot be ended.
func reopen(fd int, flags int) (int, error) {
	n, err := openAgain(fd, flags|unix.O_NONBLOCK)
	if !errors.Is(err, unix.EAGAIN) {
		return n, err
	}
	// A program of the host has a lease. The kernel takes it away in some time.
	if n, err = openAgain(fd, flags); err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(n, true); err != nil {
		_ = unix.Close(n)
		return -1, err
	}
	return n, nil
}

func openAgain(fd int, flags int) (int, error) {
	for {
		n, err := unix.Open(pathOf(fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// pathOf is a path to the file of a descriptor, for calls that do not take one. The last
// step, a magic link, leads to the file itself, whatever its name is now; one to a
// symbolic link ends there.
func pathOf(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func statx(fd int, st *unix.Statx_t) error {
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT,
		unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, st)
}
