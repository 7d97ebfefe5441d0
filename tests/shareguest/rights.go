package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A user has programs in a folder.
type user struct{ uid, gid int }

// does has this program act (actions.go) as another user.
func (u user) does(umask, what string, paths ...string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	args := append([]string{"as", strconv.Itoa(u.uid), strconv.Itoa(u.gid), umask, self, "do", what}, paths...)
	out, err := exec.Command(self, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%d:%d %s %s: %w: %s", u.uid, u.gid, what, paths, err, out)
	}
	return string(out), err
}

func expect(path string, mode os.FileMode, uid, gid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if got := st.Mode & 0o7777; got != uint32(mode) || int(st.Uid) != uid || int(st.Gid) != gid {
		return fmt.Errorf("%s is %o of %d:%d, not %o of %d:%d", filepath.Base(path), got, st.Uid, st.Gid, mode, uid, gid)
	}
	return nil
}

func owners(p place) error {
	var made []error
	for _, umask := range []string{"022", "077", "000"} {
		for what, mode := range map[string]uint64{"touch": 0o666, "mkdir": 0o777, "mkfifo": 0o666} {
			name := p.path(what + umask)
			_, err := someone.does(umask, what, name)
			mask, _ := strconv.ParseUint(umask, 8, 32)
			if err == nil && p.owns {
				err = expect(name, os.FileMode(mode&^mask), someone.uid, someone.gid)
			}
			made = append(made, err)
		}
	}
	made = append(made, os.WriteFile(p.path("roots"), nil, 0o640))
	if !p.owns {
		return errors.Join(append(made, is(unix.EPERM, os.Chown(p.path("roots"), other.uid, other.gid)))...)
	}
	made = append(made,
		expect(p.path("roots"), 0o640, 0, 0),
		os.Chown(p.path("roots"), other.uid, other.gid), expect(p.path("roots"), 0o640, other.uid, other.gid))
	_, err := someone.does("022", "symlink", p.path("link"))
	return errors.Join(append(made, err, expect(p.path("link"), 0o777, someone.uid, someone.gid))...)
}

func permissions(p place) error {
	if !p.owns {
		return nil
	}
	secret := p.path("secret")
	if _, err := someone.does("077", "touch", secret); err != nil {
		return err
	}
	if _, err := someone.does("077", "write", secret); err != nil {
		return err
	}
	if got, err := other.does("022", "read", secret); err == nil {
		return fmt.Errorf("another user reads %q", got)
	}
	if _, err := other.does("022", "write", secret); err == nil {
		return errors.New("another user writes")
	}
	if _, err := other.does("022", "chmod", secret); err == nil {
		return errors.New("another user changes the mode")
	}
	if err := os.Mkdir(p.path("private"), 0o700); err != nil {
		return err
	}
	if _, err := someone.does("022", "touch", p.path("private", "x")); err == nil {
		return errors.New("a user makes files in root's folder")
	}
	if err := os.WriteFile(p.path("none"), []byte("root reads all"), 0); err != nil {
		return err
	}
	if b, err := os.ReadFile(p.path("none")); err != nil || string(b) != "root reads all" {
		return fmt.Errorf("root reads %q: %w", b, err)
	}
	return nil
}

// setUserID is lost where someone writes to the file.
func setUserID(p place) error {
	if !p.owns {
		return nil
	}
	for _, how := range []string{"write", "truncate", "overwrite"} {
		program := p.path(how)
		if err := errors.Join(os.WriteFile(program, []byte("program"), 0o777), os.Chmod(program, 0o777)); err != nil {
			return err
		}
		if err := unix.Chmod(program, 0o6777); err != nil {
			return err
		}
		if err := expect(program, 0o6777, 0, 0); err != nil {
			return err
		}
		if _, err := someone.does("022", how, program); err != nil {
			return err
		}
		if err := expect(program, 0o777, 0, 0); err != nil {
			return fmt.Errorf("%s: %w", how, err)
		}
	}
	program := p.path("given")
	if err := errors.Join(os.WriteFile(program, nil, 0o777), unix.Chmod(program, 0o4755), os.Chown(program, 1, 1)); err != nil {
		return err
	}
	return expect(program, 0o755, 1, 1)
}

func setGroupID(p place) error {
	if !p.owns {
		return nil
	}
	folder := p.path("group")
	if err := errors.Join(os.Mkdir(folder, 0o777), os.Chown(folder, 0, 777), unix.Chmod(folder, 0o2777)); err != nil {
		return err
	}
	if _, err := someone.does("022", "touch", filepath.Join(folder, "file")); err != nil {
		return err
	}
	if _, err := someone.does("022", "mkdir", filepath.Join(folder, "sub")); err != nil {
		return err
	}
	return errors.Join(
		expect(filepath.Join(folder, "file"), 0o644, someone.uid, 777),
		expect(filepath.Join(folder, "sub"), 0o2755, someone.uid, 777))
}

func special(p place) error {
	if err := unix.Mknod(p.path("fifo"), unix.S_IFIFO|0o644, 0); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(p.path("fifo"), []byte("through"), 0) }()
	got, err := os.ReadFile(p.path("fifo"))
	if err = errors.Join(err, <-done); err != nil || string(got) != "through" {
		return fmt.Errorf("the FIFO gave %q: %w", got, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: p.path("socket")}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	err = unix.Mknod(p.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	if !p.owns {
		return is(unix.EPERM, err)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Stat(p.path("null"), &st)
	if err == nil && st.Rdev != unix.Mkdev(1, 3) {
		err = fmt.Errorf("device %#x", st.Rdev)
	}
	return err
}

func xattrs(p place) error {
	path := p.path("file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	space := "user"
	if errors.Is(unix.Setxattr(path, "user.try", nil, 0), unix.EOPNOTSUPP) {
		space = "trusted" // tmpfs has only these before Linux 6.6
	} else if err := unix.Removexattr(path, "user.try"); err != nil {
		return err
	}
	some, long, empty := space+".husk", space+".big", space+".empty"
	for name, value := range map[string]string{some: "value", long: strings.Repeat("v", 1500), empty: ""} {
		if err := unix.Setxattr(path, name, []byte(value), 0); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b := make([]byte, 4096)
		if n, err := unix.Getxattr(path, name, b); err != nil || string(b[:n]) != value {
			return fmt.Errorf("%s is %d bytes: %w", name, n, err)
		}
		if n, err := unix.Getxattr(path, name, nil); err != nil || n != len(value) {
			return fmt.Errorf("%s has %d bytes: %w", name, n, err)
		}
	}
	if err := is(unix.EEXIST, unix.Setxattr(path, some, nil, unix.XATTR_CREATE)); err != nil {
		return err
	}
	_, short := unix.Getxattr(path, long, make([]byte, 10))
	if err := is(unix.ERANGE, short); err != nil {
		return err
	}
	if err := unix.Removexattr(path, long); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, err := unix.Listxattr(path, b)
	if err != nil {
		return err
	}
	names := strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00")
	slices.Sort(names)
	if !slices.Equal(names, []string{empty, some}) {
		return fmt.Errorf("the names are %q", names)
	}
	_, gone := unix.Getxattr(path, long, b)
	return is(unix.ENODATA, gone)
}
