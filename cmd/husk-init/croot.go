package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/guestinit/inroot"
	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/internal/guestinit/tmpfs"
)

// Where a container's root is put together, in its mount namespace. None of it is seen
// from inside.
const (
	imageRoot   = spec.Dir + "/image"  // the image's root
	memory      = spec.Dir + "/memory" // a tmpfs: what is written to the root, without a disk for it
	upperDisk   = spec.Dir + "/upper"  // the disk for it
	shares      = spec.Dir + "/shares" // what is mounted aside
	newRootPath = spec.Dir + "/root"   // all as one
	etcFolder   = spec.Dir + "/etc"    // files for /etc
	ownUpper    = spec.Dir + "/data"   // upperDisk, where husk-init itself is
)

// build puts the container's root together, and makes it the root of the namespace that the
// calling thread is in.
func (c *container) build() error {
	lower, err := mountDisk(c.spec.Root, imageRoot, unix.MS_RDONLY)
	if err != nil {
		return fmt.Errorf("the image's root: %w", err)
	}
	if err := c.overlay(lower); err != nil {
		return err
	}
	root, err := inroot.Open(newRootPath)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := c.mountIn(root); err != nil {
		return err
	}
	// Who starts a command there says what is wrong with it.
	if dir, err := root.Folder(cmp.Or(c.spec.Dir, "/")); err == nil {
		_ = dir.Close()
	}
	if c.spec.ReadOnly {
		if err := unix.Mount("", newRootPath, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	if err := unix.Chdir(newRootPath); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return nil
}

// overlay puts what can be written to above the image's root.
func (c *container) overlay(lower string) error {
	// Even a root that is read-only in the end gets folders to mount on.
	if err := mountAll("/", []mount{{"tmpfs", memory, "tmpfs", 0, "mode=0755", false}}); err != nil {
		return err
	}
	writable := memory
	if c.spec.Upper != nil && !c.spec.ReadOnly {
		var err error
		if writable, err = mountDisk(*c.spec.Upper, upperDisk, unix.MS_NOATIME); err != nil {
			return fmt.Errorf("the disk for what is written: %w", err)
		}
	}
	upper, work := filepath.Join(writable, "upper"), filepath.Join(writable, "work")
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := copyOwner(lower, upper); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	return mountAll("/", []mount{{"overlay", newRootPath, "overlay", 0, options, false}})
}

// copyOwner gives one folder another's mode and owner: the root of an overlay has
// those of its upper folder.
func copyOwner(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return &os.PathError{Op: "stat", Path: from, Err: err}
	}
	if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(to, st.Mode&0o7777)
}

// diskWait is how long a disk may take to be found by its driver.
const diskWait = 10 * time.Second

// mountDisk mounts the disk of a serial number.
func mountDisk(d spec.Disk, target string, flags uintptr) (string, error) {
	device, err := findDisk("/sys", d.Serial, time.Now().Add(diskWait))
	if err != nil {
		return "", err
	}
	return target, mountAll("/", []mount{{device, target, d.FileSystem, flags, "", false}})
}

// findDisk waits for a disk, and gives its device file.
func findDisk(sys, serial string, until time.Time) (string, error) {
	for {
		names, err := filepath.Glob(filepath.Join(sys, "block/vd*"))
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if line(filepath.Join(name, "serial")) == serial {
				return "/dev/" + filepath.Base(name), nil
			}
		}
		if time.Now().After(until) {
			for i, name := range names {
				names[i] = filepath.Base(name) + " " + strconv.Quote(line(filepath.Join(name, "serial")))
			}
			return "", fmt.Errorf("there is no virtio disk with the serial number %q; the kernel sees: %s; does it lack virtio_blk (CONFIG_VIRTIO_BLK), or the driver of its bus?",
				serial, cmp.Or(strings.Join(names, ", "), "none"))
		}
		time.Sleep(time.Millisecond)
	}
}

// A place is what is mounted in the container.
type place struct {
	target   string
	mount    func(at string, made bool) error // made: the target was not there
	file     bool                             // the target is a file
	optional bool                             // a kernel without it will do
}

// mountIn mounts all that is below the root.
func (c *container) mountIn(root *inroot.Root) error {
	if err := mountPlaces(root, c.asked(c.standard())); err != nil {
		return err
	}
	if err := furnishDev(root); err != nil {
		return fmt.Errorf("/dev: %w", err)
	}
	return linkMtab(root)
}

// asked adds what a user mounts to what is there otherwise, some of which it replaces.
func (c *container) asked(list []place) []place {
	for _, name := range etcNames {
		list = append(list, place{name, bindEtc(c.etc.file(name), c.spec.ReadOnly), true, false})
	}
	for _, m := range c.spec.Mounts {
		target := path.Clean("/" + m.Target)
		list = slices.DeleteFunc(list, func(p place) bool { return p.target == target })
		list = append(list, placeOf(m, target))
	}
	return list
}

// mountPlaces mounts a list, the least deep first: what is deeper may be in it.
func mountPlaces(root *inroot.Root, list []place) error {
	depth := func(p place) int { return strings.Count(strings.TrimSuffix(p.target, "/"), "/") }
	slices.SortStableFunc(list, func(a, b place) int { return cmp.Compare(depth(a), depth(b)) })
	for _, p := range list {
		if err := p.mountIn(root); err != nil && !p.optional {
			return fmt.Errorf("mount %s: %w", p.target, err)
		}
	}
	return nil
}

// mountIn mounts one.
func (p place) mountIn(root *inroot.Root) error {
	before, err := root.Find(p.target, 0)
	if err == nil {
		_ = before.Close()
	}
	open := root.Folder
	if p.file {
		open = root.File
	}
	at, err := open(p.target)
	if err != nil {
		return err
	}
	defer at.Close()
	if p.mount == nil {
		return nil
	}
	return p.mount(inroot.Path(at), before == nil)
}

// bindEtc mounts a file of ours, whose folder stays writable for us.
func bindEtc(from string, readOnly bool) func(string, bool) error {
	return func(at string, _ bool) error {
		if readOnly {
			dir, err := aside(func(dir string) error { return unix.Mount(filepath.Dir(from), dir, "", unix.MS_BIND, "") }, true)
			if err != nil {
				return fmt.Errorf("bind %s: %w", filepath.Base(from), err)
			}
			from = filepath.Join(dir, filepath.Base(from))
		}
		return bind(from, at)
	}
}

// bind mounts what is at a path.
func bind(from, at string) error {
	if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", filepath.Base(from), err)
	}
	return nil
}

// aside mounts in a folder of its own what is bound to where it is wanted later: the path
// to there leads below a mount, to what was opened, so a mount cannot be changed there; and
// what is bound from one that is read-only is so, too.
func aside(mount func(dir string) error, readOnly bool) (dir string, err error) {
	if err := os.MkdirAll(shares, 0o700); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(shares, ""); err != nil {
		return "", err
	}
	if err := mount(dir); err != nil {
		return "", err
	}
	if readOnly {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return "", fmt.Errorf("read-only: %w", err)
		}
	}
	return dir, nil
}

// standard is what Docker's containers have, in their order.
//
// /dev is the kernel's own (devtmpfs), not a tmpfs with the few files that a container
// engine would put there: a machine's disks, their partitions, /dev/kvm and /dev/fuse are
// the user's to have, and appear when the kernel finds them. As root is root of the
// machine, a shorter list would keep nothing from anybody.
func (c *container) standard() []place {
	fs := func(target, fstype string, flags uintptr, options string) place {
		return place{target: target, mount: func(at string, _ bool) error { return mountFS(fstype, fstype, at, flags, options) }}
	}
	optional := func(p place) place {
		p.optional = true
		return p
	}
	shm := c.spec.ShmSize
	if shm == 0 {
		shm = 64 << 20
	}
	const suid = unix.MS_NOSUID
	return []place{
		{target: "/proc"}, // only a process in the container can mount it: its first does
		fs("/sys", "sysfs", locked, ""),
		fs("/dev", "devtmpfs", suid, "mode=0755"),
		fs("/dev/pts", "devpts", suid|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
		fs("/dev/shm", "tmpfs", locked, fmt.Sprintf("mode=1777,size=%d", shm)),
		optional(fs("/dev/mqueue", "mqueue", locked, "")),
		optional(fs("/sys/fs/cgroup", "cgroup2", locked, "")),
	}
}

// placeOf is what a user has asked for.
func placeOf(m spec.Mount, target string) place {
	if m.Tag == "" {
		return place{target: target, mount: func(at string, made bool) error { return mountTmpfs(m, at, made) }}
	}
	return place{target: target, file: m.File != "", mount: func(at string, _ bool) error { return mountShare(m, at) }}
}

// mountTmpfs mounts a tmpfs. As with runc, a folder of the image's keeps its mode, unless
// another is given, and one that was made for it is for everybody.
func mountTmpfs(m spec.Mount, at string, made bool) error {
	o, err := tmpfs.Parse(m.Options)
	if err != nil {
		return err
	}
	data := "mode=1777"
	if !made {
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil {
			return err
		}
		data = fmt.Sprintf("mode=%04o", st.Mode&0o7777)
	}
	if o.Data != "" {
		data += "," + o.Data
	}
	if m.ReadOnly {
		o.Flags |= unix.MS_RDONLY
	}
	return mountFS("tmpfs", "tmpfs", at, o.Flags, data)
}

// mountShare mounts a virtio-fs share, or one file of it. All mounts of one share are one
// file system, so it is the mount that is read-only.
func mountShare(m spec.Mount, at string) error {
	if m.File == "" && !m.ReadOnly {
		return mountTag(m.Tag, at)
	}
	dir, err := aside(func(dir string) error { return mountTag(m.Tag, dir) }, m.ReadOnly)
	if err != nil {
		return err
	}
	return bind(filepath.Join(dir, filepath.Clean("/"+m.File)), at)
}

func mountTag(tag, at string) error {
	err := mountFS(tag, "virtiofs", at, 0, "")
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("the machine has no share %q: %w", tag, err)
	}
	return err
}
