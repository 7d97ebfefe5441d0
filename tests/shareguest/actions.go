package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// act does one thing to a path, for a user who has nothing but this program.
func act(what, path string) error {
	switch what {
	case "touch":
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		return f.Close()
	case "mkdir":
		return os.Mkdir(path, 0o777)
	case "mkfifo":
		return unix.Mkfifo(path, 0o666)
	case "symlink":
		return os.Symlink("nowhere", path)
	case "read":
		b, err := os.ReadFile(path)
		fmt.Printf("%s", b)
		return err
	case "write":
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("written")
		return errors.Join(err, f.Close())
	case "overwrite":
		return os.WriteFile(path, []byte("overwritten"), 0)
	case "truncate":
		return os.Truncate(path, 1)
	case "chmod":
		return os.Chmod(path, 0o777)
	case "lock":
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 10})
	}
	return errUsage
}

// readonly tries to change what must stay as it is.
func readonly(dir string) error {
	file := filepath.Join(dir, "file")
	_, create := os.Create(filepath.Join(dir, "new"))
	_, open := os.OpenFile(file, os.O_WRONLY, 0)
	failed := []error{
		is(unix.EROFS, create), is(unix.EROFS, open),
		is(unix.EROFS, os.Truncate(file, 0)),
		is(unix.EROFS, os.Mkdir(filepath.Join(dir, "sub"), 0o755)),
		is(unix.EROFS, os.Remove(file)),
		is(unix.EROFS, os.Rename(file, filepath.Join(dir, "moved"))),
		is(unix.EROFS, os.Link(file, filepath.Join(dir, "linked"))),
		is(unix.EROFS, os.Symlink("x", filepath.Join(dir, "soft"))),
		is(unix.EROFS, os.Chmod(file, 0o777)),
		is(unix.EROFS, os.Chown(file, 1, 1)),
		is(unix.EROFS, os.Chtimes(file, time.Now(), time.Now())),
		is(unix.EROFS, unix.Setxattr(file, "user.x", []byte("x"), 0)),
	}
	b, err := os.ReadFile(file)
	if err == nil && len(b) == 0 {
		err = errors.New("the file is empty")
	}
	return errors.Join(append(failed, err)...)
}

// watch answers the host, which writes a number to the file "host", by writing that to
// "guest". The host is told of nothing: it is the file that tells.
func watch(dir string, rounds int) error {
	for i := range rounds {
		want := strconv.Itoa(i)
		for {
			b, err := os.ReadFile(filepath.Join(dir, "host"))
			if err == nil && string(b) == want {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err := os.WriteFile(filepath.Join(dir, "guest.new"), []byte(want), 0o644); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, "guest.new"), filepath.Join(dir, "guest")); err != nil {
			return err
		}
	}
	return nil
}
