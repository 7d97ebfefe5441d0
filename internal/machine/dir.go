package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// DefaultDir is where the machines of this user are: $XDG_RUNTIME_DIR/husk, or without
// that variable /run/husk for root, and for others a folder in /tmp that must be theirs
// alone.
func DefaultDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("XDG_RUNTIME_DIR=%s: not an absolute path; unset it, or set it to a folder of yours", dir)
		}
		return filepath.Join(dir, "husk"), nil
	}
	uid := os.Geteuid()
	if uid == 0 {
		return "/run/husk", nil
	}
	dir := filepath.Join(os.TempDir(), "husk-"+strconv.Itoa(uid))
	return dir, private(dir, uid)
}

// private makes a folder where others can make some too, or checks that the one that is
// there is ours alone.
func private(dir string, uid int) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != uid || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s: not a folder that is yours alone (mode 0700); remove it, or set XDG_RUNTIME_DIR", dir)
	}
	return nil
}

// DefaultData is where machines keep what may be large: logs, and disks that are
// written to. The folder of DefaultDir is often in memory.
func DefaultData(getenv func(string) string) (string, error) {
	dir := getenv("XDG_DATA_HOME")
	if dir == "" {
		home := getenv("HOME")
		if home == "" && os.Geteuid() == 0 {
			home = "/root"
		}
		if home == "" {
			return "", errors.New("neither XDG_DATA_HOME nor HOME is set, so there is no place for the disks and logs of machines; set one")
		}
		dir = filepath.Join(home, ".local", "share")
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("XDG_DATA_HOME=%s: not an absolute path; unset it, or set it to a folder of yours", dir)
	}
	return filepath.Join(dir, "husk"), nil
}
