package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/internal/agent"
)

// A first is a container's first process before it becomes the container's command:
// husk-init again, in namespaces of its own, that waits to be told what to become. What
// can only be done in there, mounting its /proc, it does then.
type first struct {
	proc  *os.Process
	conn  *os.File      // a Unix socket
	begun chan struct{} // closed when it is the command
	used  bool
}

// firstConn is the process's end of the socket.
const firstConn = 3

// startFirst starts it.
func startFirst() (*first, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "first"), os.NewFile(uintptr(ends[1]), "first")
	defer theirs.Close()
	proc, err := os.StartProcess(self, []string{firstName}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, theirs},
		// Go has what is mounted in an unshared namespace seen nowhere else.
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS},
	})
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("the container's first process: %w", err)
	}
	return &first{proc: proc, conn: ours, begun: make(chan struct{})}, nil
}

func (f *first) pid() int { return f.proc.Pid }

// namespace is the file of one of its namespaces.
func (f *first) namespace(kind string) string {
	return fmt.Sprintf("/proc/%d/ns/%s", f.proc.Pid, kind)
}

func (f *first) isRunning() bool {
	select {
	case <-f.begun:
		return true
	default:
		return false
	}
}

// An order is what the first process is to become: an agent.Program whose Files are sent
// with it, behind the folder that is the root.
type order struct {
	Path     string
	Argv     []string
	Env      []string
	Dir      string
	User     *syscall.Credential
	Terminal bool
}

// The stages at which it may fail.
const (
	atRoot byte = iota + 1 // nothing that the user has given
	atDir
	atUser
	atExec
)

var stages = map[byte]string{atRoot: "the container's root", atDir: "the working directory", atUser: "the user"}

// become has the process become a program. The calling thread is in the container's
// mount namespace. It works once: what failed to become one thing has ended.
func (f *first) become(p *agent.Program) (*os.Process, error) {
	if f.used {
		return nil, errors.New("the container has ended with what failed to start in it")
	}
	f.used = true
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	text, err := json.Marshal(order{p.Path, p.Argv, p.Env, p.Dir, p.User, p.Terminal})
	if err != nil {
		return nil, err
	}
	fd := int(f.conn.Fd()) // it blocks from now on; the other side answers at once
	files := unix.UnixRights(int(root.Fd()), int(p.Files[0].Fd()), int(p.Files[1].Fd()), int(p.Files[2].Fd()))
	if err := unix.Sendmsg(fd, binary.BigEndian.AppendUint32(nil, uint32(len(text))), files, nil, 0); err != nil {
		return nil, os.NewSyscallError("sendmsg", err)
	}
	if _, err := f.conn.Write(text); err != nil {
		return nil, err
	}
	var b [5]byte
	switch _, err := io.ReadFull(f.conn, b[:]); {
	case errors.Is(err, io.EOF): // closed by its exec
		close(f.begun)
		return f.proc, nil
	case err != nil:
		return nil, err
	}
	_, _ = f.proc.Wait()
	errno := unix.Errno(binary.BigEndian.Uint32(b[1:]))
	if b[0] == atExec {
		return nil, &os.PathError{Op: "exec", Path: p.Path, Err: errno}
	}
	return nil, &os.SyscallError{Syscall: stages[b[0]], Err: errno}
}

// firstMain is the process. It returns only when it becomes nothing.
func firstMain() error {
	unix.CloseOnExec(firstConn)
	conn := os.NewFile(firstConn, "husk-init")
	var o order
	files, err := o.receive(conn)
	if err != nil {
		return err // husk-init has ended
	}
	stage, err := o.become(files)
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.EINVAL
	}
	_, err = conn.Write(binary.BigEndian.AppendUint32([]byte{stage}, uint32(errno)))
	return err
}

// receive waits for the order.
func (o *order) receive(conn *os.File) (files []int, err error) {
	var size [4]byte
	rights := make([]byte, unix.CmsgSpace(4*4))
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(int(conn.Fd()), size[:], rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || n != len(size) {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	list, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		files = append(files, fds...)
	}
	if len(files) != 4 {
		return nil, fmt.Errorf("%d files, not 4", len(files))
	}
	text := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, text); err != nil {
		return nil, err
	}
	return files, json.Unmarshal(text, o)
}

// become replaces the process. It returns only if it cannot. files are the root and the
// standard files.
func (o *order) become(files []int) (stage byte, err error) {
	root, std := files[0], files[1:]
	for _, step := range []func() error{
		func() error { return unix.Fchdir(root) },
		func() error { return unix.Chroot(".") },
		func() error { return unix.Mount("proc", "/proc", "proc", locked, "") },
		func() error { _, err := unix.Setsid(); return err },
		func() error { return standardFiles(std) },
		func() error {
			if !o.Terminal {
				return nil
			}
			return unix.IoctlSetInt(0, unix.TIOCSCTTY, 0)
		},
	} {
		if err := step(); err != nil {
			return atRoot, err
		}
	}
	if err := unix.Chdir(o.Dir); err != nil { // as root, who may enter it
		return atDir, err
	}
	if err := o.becomeUser(); err != nil {
		return atUser, err
	}
	return atExec, unix.Exec(o.Path, o.Argv, o.Env)
}

// standardFiles makes what was received standard input, output and error.
func standardFiles(list []int) error {
	for to, from := range list {
		if err := unix.Dup3(from, to, 0); err != nil { // none of them is below 3
			return err
		}
	}
	return nil
}

// becomeUser gives up being root. Go does it for all threads.
func (o *order) becomeUser() error {
	if o.User == nil {
		return nil
	}
	groups := make([]int, len(o.User.Groups))
	for i, g := range o.User.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return err
	}
	if err := syscall.Setgid(int(o.User.Gid)); err != nil {
		return err
	}
	return syscall.Setuid(int(o.User.Uid))
}
