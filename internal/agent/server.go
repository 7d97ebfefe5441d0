package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/yamux"
)

// Refuse tells the host over conn why the guest cannot serve.
func Refuse(conn io.Writer, reason error) error {
	return writeFrame(conn, hello{Version: version, Error: reason.Error()})
}

// A Server is the guest's side. The zero Server runs commands where it runs itself.
type Server struct {
	// Enter, unless nil, moves the calling thread to where commands run, such as
	// another root. It is called on a thread that is used for one thing and ends.
	Enter func() error
	// Builtin, unless nil, gives for a command that is not there a program's path and
	// arguments (with argument 0) that do the same, or nil.
	Builtin func(argv []string) []string
	// PowerOff, unless nil, powers the guest off, and does not return if it can. Else
	// the programs poweroff and systemctl are tried.
	PowerOff func() error
	// AfterExit, unless nil, is called after each command before the host learns
	// of its end.
	AfterExit func()
	// Container, unless nil, is where commands run, and makes them run as container
	// engines have it: with a session each, whose signals go to one process alone.
	Container Container

	main mainCommand
}

// A Container has processes of its own (pid_namespaces(7)). Both methods are called on
// a thread that Server.Enter has moved.
type Container interface {
	// First starts the program that becomes the container's first process, with whose
	// end all others end. It is called again only if it failed.
	First(p *Program) (*os.Process, error)
	// Join has what the calling thread starts be one of the container's processes.
	Join() error
}

// A mainCommand is a container's first process.
type mainCommand struct {
	mu      sync.Mutex
	started bool
	ended   bool
}

// Serve runs the commands that come over conn until the connection or ctx ends,
// kills those that still run then, and closes conn.
func (v *Server) Serve(ctx context.Context, conn io.ReadWriteCloser) error {
	if err := writeFrame(conn, hello{Version: version}); err != nil {
		_ = conn.Close()
		return err
	}
	session, err := yamux.Server(conn, config())
	if err != nil {
		_ = conn.Close()
		return err
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()

	var commands sync.WaitGroup
	defer commands.Wait()
	for {
		s := make([]*yamux.Stream, streams)
		for i := range s {
			if s[i], err = session.AcceptStream(); err != nil {
				closeAll(s)
				if errors.Is(err, io.EOF) || errors.Is(err, yamux.ErrSessionShutdown) {
					return ctx.Err()
				}
				return err
			}
		}
		commands.Go(func() {
			defer closeAll(s)
			v.serveCommand(s)
		})
	}
}

// inside calls f where commands run.
func (v *Server) inside(f func() error) error {
	if v.Enter == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: nothing else shall run in there
		err := v.Enter()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// serveCommand does what the host asks for by one set of streams.
func (v *Server) serveCommand(s []*yamux.Stream) {
	control, stdin, stdout, stderr := s[0], s[1], s[2], s[3]
	var c start
	if err := readFrame(control, &c); err != nil {
		return
	}
	work, code, err := v.work(c, stdin, stdout, stderr)
	if err == nil {
		var steering sync.WaitGroup
		// The host closes its end of control when it has the outcome.
		defer steering.Wait()
		steering.Go(func() {
			work.obey(control)
			abandon(s[1:]) // or what is written to a host that reads no more would wait for ever
		})
		_ = writeFrame(control, outcome{Started: true})
		code, err = work.do()
	}
	_ = stdout.Close()
	_ = stderr.Close()
	if v.AfterExit != nil {
		v.AfterExit()
	}
	end := outcome{Code: code}
	if err != nil {
		end.Error = err.Error()
	}
	if p := work.process; p != nil {
		end.OOMKilled = oomKills() > p.oomKills
	}
	_ = writeFrame(control, end)
}

// A work is one thing that the host asks for.
type work struct {
	do      func() (code int, err error)
	process *process // for signals, or nil
}

// work begins what the host asks for. When it cannot, there may be a code for that.
func (v *Server) work(c start, stdin, stdout, stderr io.ReadWriteCloser) (w work, code int, err error) {
	switch c.Op {
	case opRun:
		code = CodeNotExecutable
		err = v.inside(func() (err error) {
			w.process, code, err = v.launch(c, stdin, stdout, stderr)
			return err
		})
		w.do = func() (int, error) { return w.process.wait(), nil }
	case opUpload:
		w.do = func() (int, error) { return 0, v.upload(c.Dir, stdin, c.Owners) }
	case opDownload:
		w.do = func() (int, error) { return 0, v.download(c.Dir, stdout) }
	case opPowerOff:
		w.do = func() (int, error) { return 0, v.powerOff() }
	default:
		err = fmt.Errorf("%w: there is no operation %q", ErrProtocol, c.Op)
	}
	return w, code, err
}

// obey follows the host's requests, and kills the command when the host has
// gone. It returns then.
func (w work) obey(control io.Reader) {
	for {
		var r request
		err := readFrame(control, &r)
		switch {
		case w.process == nil && err == nil:
			continue
		case w.process == nil:
			return
		case err != nil:
			w.process.kill()
			return
		}
		if r.Signal > 0 {
			w.process.signal(syscall.Signal(r.Signal))
		}
		if r.Resize != nil {
			w.process.resize(*r.Resize)
		}
	}
}

// upload unpacks a tar into a folder where commands run.
func (v *Server) upload(dir string, tar io.Reader, owners bool) error {
	root, err := v.openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unpack(root, tar, keep{allModes, owners}); err != nil {
		return fmt.Errorf("into %s: %w", dir, err)
	}
	// The end of a tar is before the end of what was sent: padding.
	_, _ = io.Copy(io.Discard, tar)
	return nil
}

// download writes a file or folder from where commands run as a tar.
func (v *Server) download(name string, tar io.Writer) error {
	dir, base := splitSource(name)
	root, err := v.openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := Pack(tar, root, base); err != nil {
		return fmt.Errorf("from %s: %w", dir, err)
	}
	return nil
}

// openRoot opens a folder where commands run. What is done by it may be done anywhere.
func (v *Server) openRoot(dir string) (root *os.Root, err error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%s: an absolute path is needed", dir)
	}
	err = v.inside(func() (err error) {
		root, err = os.OpenRoot(dir)
		return err
	})
	return root, err
}

// powerOff powers the guest off, by what its init understands.
func (v *Server) powerOff() error {
	if v.PowerOff != nil {
		return v.PowerOff()
	}
	var failed error
	for _, argv := range [][]string{{"poweroff"}, {"systemctl", "poweroff"}} {
		err := v.quietly(argv)
		if err == nil {
			return nil
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// quietly runs a program where commands run, and tells of its output if it fails.
func (v *Server) quietly(argv []string) error {
	var out bytes.Buffer
	var cmd *exec.Cmd
	err := v.inside(func() error {
		file, _, err := lookPath(argv[0], "/", nil)
		if err != nil {
			return err
		}
		cmd = &exec.Cmd{Path: file, Args: argv, Env: v.environment(start{}, nil), Dir: "/", Stdout: &out, Stderr: &out}
		return cmd.Start()
	})
	if err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
