package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"

	"github.com/hashicorp/yamux"
)

// Refuse tells the host over conn why the guest cannot serve.
func Refuse(conn io.Writer, reason error) error {
	return writeFrame(conn, hello{Version: version, Error: reason.Error()})
}

// Serve runs the commands that come over conn until the connection or ctx ends,
// kills those that still run then, and closes conn. afterExit, unless nil, is
// called after each command before the host learns of its end.
func Serve(ctx context.Context, conn io.ReadWriteCloser, afterExit func()) error {
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
			serveCommand(s, afterExit)
		})
	}
}

// serveCommand runs one command.
func serveCommand(s []*yamux.Stream, afterExit func()) {
	control, stdin, stdout, stderr := s[0], s[1], s[2], s[3]
	var c start
	if err := readFrame(control, &c); err != nil {
		return
	}
	p, code, err := launch(c, stdin, stdout, stderr)
	if err != nil {
		_ = stdout.Close()
		_ = stderr.Close()
		_ = writeFrame(control, outcome{Code: code, Error: err.Error()})
		return
	}
	var steering sync.WaitGroup
	steering.Go(func() { p.obey(control) })
	code = p.wait()
	_ = stdout.Close()
	_ = stderr.Close()
	if afterExit != nil {
		afterExit()
	}
	_ = writeFrame(control, outcome{Code: code})
	// The host closes its end of control when it has the outcome.
	steering.Wait()
}

// obey follows the host's requests, and kills the command when the host has
// gone. It returns then.
func (p *process) obey(control io.Reader) {
	for {
		var r request
		if err := readFrame(control, &r); err != nil {
			p.signal(syscall.SIGKILL)
			return
		}
		if r.Signal > 0 {
			p.signal(syscall.Signal(r.Signal))
		}
		if r.Resize != nil {
			p.resize(*r.Resize)
		}
	}
}
