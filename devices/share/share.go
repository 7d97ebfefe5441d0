// Package share serves a folder of the host, or a single file, by the FUSE protocol
// (include/uapi/linux/fuse.h). It is a backend: it is given requests, wherever they
// come from, and knows nothing of virtio.
//
// Who asks is not trusted. Nothing outside of the folder is reached, whatever the names
// in the requests and the symbolic links in the folder, and whatever programs of the host
// do to it meanwhile: a file is known by a descriptor (O_PATH) from the time it was
// looked up, names are looked up in the descriptor of their folder, one at a time,
// without following links (openat2), and "." and ".." are no names. What a link leads to
// is found by the guest's kernel, among the guest's files.
//
// Permissions are checked by the guest's kernel (default_permissions). Here, husk's own
// user is what counts: with root, owners are the guest's; else all that is made is that
// user's, and to give it to others is refused (EPERM).
package share

import (
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// MaxTransfer is the most that one request reads or writes, in bytes.
const MaxTransfer = 1 << 20

// Config says what is shared, and how.
type Config struct {
	// Path is a folder, or a regular file: that is then the only entry of a folder that
	// cannot be changed, under its own name.
	Path string
	// ReadOnly refuses every request that would change something (EROFS).
	ReadOnly bool
	// CacheTime is how long the guest may go on believing what it knows of names and
	// attributes. With 0, it sees at once what the host changes in a file, and within a
	// tick of its clock (about 4 ms) what it changes of names.
	CacheTime time.Duration
	// MaxOpen bounds how many descriptors the share holds: one for each file that the
	// guest knows, and one for each that it has open. What goes beyond is answered with
	// ENFILE. 0 is three quarters of what the process may have.
	MaxOpen int
	// Log receives what goes wrong on the host. Default: discarded.
	Log *slog.Logger
}

// A Share is one folder that is served. Its methods may be called from any goroutine.
type Share struct {
	c     Config
	log   *slog.Logger
	nodes *nodes
	fuse  *fuse.ProtocolServer

	// mount is held for writing where all that the guest has is dropped or set up:
	// INIT, DESTROY, Reset and Close.
	mount   sync.RWMutex
	mounted bool
	closed  bool
}

// Open makes a Share of a folder or a file, which must be there. Close releases it.
func Open(c Config) (*Share, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxOpen == 0 {
		n, err := defaultMaxOpen()
		if err != nil {
			return nil, err
		}
		c.MaxOpen = n
	}
	root, err := openRoot(c.Path)
	if err != nil {
		return nil, err
	}
	n := &nodes{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		log:           c.Log, cache: c.CacheTime, table: newTable(c.MaxOpen, root, c.Log), makers: newMakers(),
	}
	s := &Share{c: c, log: c.Log, nodes: n}
	s.fuse = fuse.NewProtocolServer(n, &fuse.MountOptions{
		Name: "husk", MaxWrite: MaxTransfer, MaxBackground: 64,
		// What the library would say is said by whoever looks at requests before it.
		Logger:               log.New(io.Discard, "", 0),
		PanicHandler:         s.panicked,
		ExtraCapabilities:    capabilities,
		DisabledCapabilities: disabled(c.CacheTime),
	})
	return s, nil
}

// capabilities are what is asked of the guest's kernel beside what the library asks for
// anyway. Locks are not among them: they hold between the guest's programs. Neither is
// the write-back cache: what is written is on the host when write(2) returns.
const capabilities = fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2 |
	fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_SUBMOUNTS | fuse.CAP_ASYNC_DIO

// disabled are capabilities that would cost more than they bring. READDIRPLUS sends
// attributes ahead, which the guest does not use if it must ask again for them.
func disabled(cache time.Duration) uint64 {
	const never = fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_PASSTHROUGH | fuse.CAP_ALLOW_IDMAP
	if cache == 0 {
		return never | fuse.CAP_READDIRPLUS | fuse.CAP_READDIRPLUS_AUTO
	}
	return never
}

// openRoot opens what is shared.
func openRoot(path string) (root, error) {
	// The path is the user's, who may well name a symbolic link.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return root{}, fmt.Errorf("%s: %w; check the path", path, err)
	}
	r := root{fd: fd, name: filepath.Base(path)}
	if err := r.look(path); err != nil {
		_ = unix.Close(fd)
		return root{}, err
	}
	return r, nil
}

// A root is what is shared.
type root struct {
	fd   int
	name string // of a file
	file bool
	stat unix.Statx_t
}

func (r *root) look(path string) error {
	if err := statx(r.fd, &r.stat); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch r.stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFREG:
		r.file = true
		return nil
	default:
		return fmt.Errorf("%s: neither a folder nor a regular file: only those can be shared", path)
	}
	probe, err := openBelow(r.fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		if errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("%s: this host's kernel has no openat2, which keeps a guest inside the folder; use Linux 5.6 or newer", path)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	_ = unix.Close(probe)
	return nil
}

// defaultMaxOpen leaves a quarter of the process's descriptors, at least 64, to others.
// Go's runtime has raised the limit as far as it may be raised.
func defaultMaxOpen() (int, error) {
	limit, err := OpenLimit()
	if err != nil {
		return 0, err
	}
	return max(limit-max(limit/4, 64), 16), nil
}

// mostDescriptors bounds OpenLimit. Each pins a KiB or two of the host's memory, as the
// guest likes, and some systems set no limit at all.
const mostDescriptors = 1 << 20

// OpenLimit is how many descriptors this process may have (RLIMIT_NOFILE), but at most a
// million.
func OpenLimit() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("the limit of open files: %w", err)
	}
	return limitOf(l.Cur), nil
}

func limitOf(files uint64) int { return int(min(files, mostDescriptors)) }

// Reset forgets all that the guest knows and has open, as if it had unmounted.
func (s *Share) Reset() {
	s.mount.Lock()
	defer s.mount.Unlock()
	s.forget()
}

// forget is Reset under the lock.
func (s *Share) forget() {
	s.mounted = false
	s.nodes.table.clear()
}

// Close releases everything. Requests that come later are refused.
func (s *Share) Close() error {
	s.mount.Lock()
	defer s.mount.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.forget()
	s.nodes.makers.close()
	return s.nodes.table.close()
}

// panicked is told of a panic in the answering of a request. There is none that is
// known; but a guest must not end the process by one.
func (s *Share) panicked(what any) fuse.Status {
	s.log.Error("share: a mistake in husk: a request was given up", "path", s.c.Path, "panic", fmt.Sprint(what))
	return fuse.EIO
}

// nodes are the files that the guest knows, and what it can do with them: the methods
// are those of the protocol.
type nodes struct {
	fuse.RawFileSystem // answers what is not served: ENOSYS
	log                *slog.Logger
	cache              time.Duration
	table              *table
	makers             *makers
}

// String implements fuse.RawFileSystem.
func (*nodes) String() string { return os.Args[0] }
