package share

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxMakers is how many files are made at a time.
const maxMakers = 4

// makers are threads that make files in the name of users of the guest: owner, group (that
// of the folder where its set-group-ID bit says so), mode and umask, or the folder's
// default ACL instead of it, are the host's kernel's to set, at once with the file. For
// that a thread takes on an owner and a umask of its own, which no other thread of this
// process sees; so it is used for nothing else, and ends with the share.
type makers struct {
	own   fuse.Owner // this process's
	umask int        // this process's, -1 if that is not known
	jobs  chan func(*maker)
	wg    sync.WaitGroup

	mu      sync.Mutex
	started int
	idle    int
	closed  bool
}

func newMakers() *makers {
	return &makers{
		own: fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}, umask: ownUmask(),
		jobs: make(chan func(*maker)),
	}
}

// ownUmask reads this process's umask, which umask(2) would only tell by changing it. It is
// that of this thread: the process's first one may be a maker of another share.
func ownUmask() int {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(text), 8, 32); err == nil {
				return int(n)
			}
		}
	}
	return -1
}

// close ends the threads. Nothing is made meanwhile or afterwards.
func (m *makers) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	close(m.jobs)
	m.wg.Wait()
}

// as runs f in the name of owner, and with umask.
func (m *makers) as(owner fuse.Owner, umask uint32, f func() error) error {
	if owner == m.own && int(umask) == m.umask {
		return f() // as it is, and without the way to another thread
	}
	if err := m.staff(); err != nil {
		return err
	}
	done := make(chan error, 1)
	m.jobs <- func(t *maker) { done <- t.as(owner, umask, f) }
	return <-done
}

// staff starts a thread if all are busy and there may be more.
func (m *makers) staff() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return unix.ENODEV
	}
	if m.started == maxMakers || m.started > 0 && m.idle > 0 {
		return nil
	}
	ready := make(chan error)
	m.wg.Go(func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		t, err := newMaker()
		ready <- err
		if err != nil {
			return
		}
		for f := range m.jobs {
			m.count(-1)
			f(t)
			m.count(1)
		}
	})
	err := <-ready
	if err == nil {
		m.started++
		m.idle++
	}
	return err
}

func (m *makers) count(n int) {
	m.mu.Lock()
	m.idle += n
	m.mu.Unlock()
}

// A maker is a thread of makers.
type maker struct {
	uid, gid int
	owns     bool // can take on any owner
	caps     [2]unix.CapUserData
}

// newMaker makes the calling thread one.
func newMaker() (*maker, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("a umask for a thread of its own (unshare): %w", err)
	}
	t := &maker{uid: os.Geteuid(), gid: os.Getegid()}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&h, &t.caps[0]); err != nil {
		return nil, fmt.Errorf("the capabilities of this process: %w", err)
	}
	const needed = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_DAC_OVERRIDE
	t.owns = t.uid == 0 && t.caps[0].Effective&needed == needed
	return t, nil
}

// nobody is an owner that the guest's kernel has no number for.
const nobody = ^uint32(0)

// as runs f as makers.as does.
func (t *maker) as(owner fuse.Owner, umask uint32, f func() error) error {
	unix.Umask(int(umask & 0o777))
	if !t.owns || int(owner.Uid) == t.uid && int(owner.Gid) == t.gid {
		return f()
	}
	if owner.Uid == nobody || owner.Gid == nobody {
		return unix.EOVERFLOW
	}
	defer func() {
		// Both are allowed always, and the first gives the capabilities back.
		_ = unix.Setfsuid(t.uid)
		_ = unix.Setfsgid(t.gid)
	}()
	if err := take(unix.SetfsgidRetGid, owner.Gid); err != nil {
		return err
	}
	if err := take(unix.SetfsuidRetUid, owner.Uid); err != nil {
		return err
	}
	if owner.Uid != uint32(t.uid) {
		// Whether that user may is for the guest's kernel, which alone knows all of
		// their groups, and has said so already.
		caps := t.caps
		caps[0].Effective &^= filesystemCaps
		caps[0].Effective |= t.caps[0].Permitted & (1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH)
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capset(&h, &caps[0]); err != nil {
			return err
		}
	}
	return f()
}

// filesystemCaps are those that setfsuid(2) takes from who was root.
const filesystemCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_MKNOD | 1<<unix.CAP_LINUX_IMMUTABLE

// take sets an owner. The calls do not say whether they have done so.
func take(set func(int) (int, error), id uint32) error {
	_, _ = set(int(id))
	if now, _ := set(-1); now != int(id) {
		return unix.EPERM // this process's user namespace has no such number
	}
	return nil
}
