package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A place is a folder under test.
type place struct {
	dir  string
	owns bool // files belong to who makes them
}

func (p place) path(name ...string) string { return filepath.Join(append([]string{p.dir}, name...)...) }

// semantics looks at what Linux promises of a file system.
func semantics(dir string, owns bool) error {
	var failed []error
	for _, check := range []struct {
		name string
		of   func(place) error
	}{
		{"owners", owners},
		{"permissions", permissions},
		{"set-user-ID", setUserID},
		{"set-group-ID folders", setGroupID},
		{"append", appending},
		{"names", renames},
		{"links", links},
		{"special files", special},
		{"holes", holes},
		{"attributes", xattrs},
		{"locks", locks},
		{"removed", removed},
		{"times", times},
		{"mappings", mappings},
		{"a large folder", largeFolder},
		{"temporary files", temporary},
	} {
		start := time.Now()
		p := place{filepath.Join(dir, strings.ReplaceAll(check.name, " ", "-")), owns}
		err := os.Mkdir(p.dir, 0o777)
		if err == nil {
			if err = os.Chmod(p.dir, 0o777); err == nil {
				err = check.of(p)
			}
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", check.name, err))
		}
		fmt.Printf("%s: %v, %v\n", check.name, err, time.Since(start).Round(time.Millisecond))
	}
	return errors.Join(failed...)
}

func is(want, got error) error {
	if got == nil {
		return fmt.Errorf("it succeeded: %w was due", want)
	}
	if !errors.Is(got, want) {
		return fmt.Errorf("%w is not what was wanted, %w", got, want)
	}
	return nil
}

var someone, other = user{1234, 2345}, user{4321, 5432}

func appending(p place) error {
	open := func() (*os.File, error) {
		return os.OpenFile(p.path("log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	}
	a, err := open()
	if err != nil {
		return err
	}
	b, err := open()
	if err != nil {
		return err
	}
	for range 3 {
		_, errA := a.WriteString("a")
		_, errB := b.WriteString("b")
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
	}
	got, err := os.ReadFile(p.path("log"))
	if err == nil && string(got) != "ababab" {
		err = fmt.Errorf("the log is %q", got)
	}
	_, again := os.OpenFile(p.path("log"), os.O_CREATE|os.O_EXCL, 0o644)
	return errors.Join(err, is(os.ErrExist, again), a.Close(), b.Close())
}

func renames(p place) error {
	a, b := p.path("a"), p.path("b")
	if err := errors.Join(os.WriteFile(a, []byte("a"), 0o644), os.WriteFile(b, []byte("b"), 0o644)); err != nil {
		return err
	}
	if err := is(unix.EEXIST, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE)); err != nil {
		return fmt.Errorf("NOREPLACE: %w", err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("EXCHANGE: %w", err)
	}
	got, err := os.ReadFile(a)
	if err != nil || string(got) != "b" {
		return fmt.Errorf("after an exchange: %q, %w", got, err)
	}
	open, err := os.Open(b)
	if err != nil {
		return err
	}
	defer open.Close()
	if err := os.Rename(a, b); err != nil {
		return err
	}
	if old, err := io.ReadAll(open); err != nil || string(old) != "a" {
		return fmt.Errorf("renamed over an open file, which has %q, %w", old, err)
	}
	long := p.path(strings.Repeat("n", 255))
	if err := os.Mkdir(long, 0o755); err != nil {
		return err
	}
	if err := is(unix.ENAMETOOLONG, os.Mkdir(long+"n", 0o755)); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(p.path("d1"), 0o755), os.Mkdir(p.path("d1", "d2"), 0o755)); err != nil {
		return err
	}
	return errors.Join(is(unix.EINVAL, os.Rename(p.path("d1"), p.path("d1", "d2", "d3"))),
		is(unix.ENOTEMPTY, os.Remove(p.path("d1"))), os.Rename(p.path("d1", "d2"), p.path("d2")))
}

func links(p place) error {
	if err := os.WriteFile(p.path("a"), []byte("one"), 0o644); err != nil {
		return err
	}
	if err := os.Link(p.path("a"), p.path("b")); err != nil {
		return err
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(p.path("a"), &a), unix.Stat(p.path("b"), &b)); err != nil {
		return err
	}
	if a.Ino != b.Ino || a.Nlink != 2 {
		return fmt.Errorf("linked files have numbers %d and %d, and %d names", a.Ino, b.Ino, a.Nlink)
	}
	target := strings.Repeat("x/", 2000) + "end"
	if err := os.Symlink(target, p.path("far")); err != nil {
		return err
	}
	if got, err := os.Readlink(p.path("far")); err != nil || got != target {
		return fmt.Errorf("a link to %d bytes leads to %d: %w", len(target), len(got), err)
	}
	if err := os.Symlink("a", p.path("soft")); err != nil {
		return err
	}
	got, err := os.ReadFile(p.path("soft"))
	if err == nil && string(got) != "one" {
		err = fmt.Errorf("through a link there is %q", got)
	}
	return err
}

func holes(p place) error {
	f, err := os.Create(p.path("sparse"))
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	if _, err := f.WriteAt([]byte("end"), 8<<20); err != nil {
		return err
	}
	if off, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != nil || off == 0 {
		return fmt.Errorf("data begins at %d: %w", off, err)
	}
	if off, err := unix.Seek(fd, 0, unix.SEEK_HOLE); err != nil || off != 0 {
		return fmt.Errorf("the hole is at %d: %w", off, err)
	}
	if err := unix.Fallocate(fd, 0, 0, 1<<20); err != nil {
		return err
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 16<<20, 1<<20); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != 8<<20+3 || st.Blocks*512 < 2<<20 {
		return fmt.Errorf("%d bytes in %d blocks: %w", st.Size, st.Blocks, err)
	}
	return nil
}

// locks are between the guest's programs.
func locks(p place) error {
	a, err := os.Create(p.path("lock"))
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(p.path("lock"))
	if err != nil {
		return err
	}
	defer b.Close()
	if err := unix.Flock(int(a.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if err := is(unix.EWOULDBLOCK, unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB)); err != nil {
		return fmt.Errorf("flock: %w", err)
	}
	record := unix.Flock_t{Type: unix.F_WRLCK, Len: 10}
	if err := unix.FcntlFlock(a.Fd(), unix.F_SETLK, &record); err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	if _, err := (user{0, 0}).does("022", "lock", p.path("lock")); err == nil {
		return errors.New("two processes have the same record locked")
	}
	return nil
}

func removed(p place) error {
	f, err := os.Create(p.path("file"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(p.path("file")); err != nil {
		return err
	}
	if _, err := f.WriteString("still here"); err != nil {
		return err
	}
	b := make([]byte, 100)
	n, _ := f.ReadAt(b, 0)
	info, err := f.Stat()
	if err != nil || string(b[:n]) != "still here" || info.Size() != 10 {
		return fmt.Errorf("%q: %w", b[:n], err)
	}
	if err := f.Truncate(5); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(p.path("d"), 0o755), f.Chmod(0o600)); err != nil {
		return err
	}
	d, err := os.Open(p.path("d"))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := os.Remove(p.path("d")); err != nil {
		return err
	}
	if names, err := d.Readdirnames(-1); err != nil && !errors.Is(err, os.ErrNotExist) || len(names) > 0 {
		return fmt.Errorf("a removed folder has %q: %w", names, err)
	}
	return nil
}

func times(p place) error {
	path := p.path("file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	mtime := time.Unix(1234567890, 123456789)
	if err := os.Chtimes(path, time.Unix(-5, 7), mtime); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mtim.Sec != mtime.Unix() || st.Mtim.Nsec != 123456789 || st.Atim.Sec != -5 || st.Atim.Nsec != 7 {
		return fmt.Errorf("mtime %v, atime %v", st.Mtim, st.Atim)
	}
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil || info.ModTime().Equal(mtime) {
		return fmt.Errorf("written to, and still %v: %w", info.ModTime(), err)
	}
	return nil
}

func mappings(p place) error {
	f, err := os.Create(p.path("file"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(3 << 12); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 3<<12, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[5000:], "mapped")
	b := make([]byte, 6)
	if _, err := f.ReadAt(b, 5000); err != nil || string(b) != "mapped" {
		return fmt.Errorf("read %q: %w", b, err)
	}
	if _, err := f.WriteAt([]byte("WRITTEN"), 100); err != nil || string(m[100:107]) != "WRITTEN" {
		return fmt.Errorf("the mapping has %q: %w", m[100:107], err)
	}
	return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
}

func largeFolder(p place) error {
	const n = 300
	for i := range n {
		if err := os.Mkdir(p.path(strconv.Itoa(i)), 0o755); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil || len(entries) != n {
		return fmt.Errorf("%d entries: %w", len(entries), err)
	}
	var st unix.Stat_t
	for _, e := range entries {
		if err := unix.Stat(p.path(e.Name()), &st); err != nil {
			return err
		}
	}
	return os.RemoveAll(p.dir)
}

func temporary(p place) error {
	fd, err := unix.Open(p.dir, unix.O_TMPFILE|unix.O_RDWR, 0o644)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // so programs do without: Linux has it for FUSE since 6.2
	}
	if err != nil {
		return err
	}
	return errors.Join(
		unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", fd), unix.AT_FDCWD, p.path("named"), unix.AT_SYMLINK_FOLLOW),
		unix.Close(fd))
}
