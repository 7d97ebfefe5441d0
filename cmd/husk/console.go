package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/term"
	"github.com/huskvm/husk/vmm"
)

// serialFile starts the --serial of a console that goes to a file.
const serialFile = "file:"

// consoleKeys is what Ctrl-A H prints.
const consoleKeys = `
husk: keys after Ctrl-A:
  X       end husk and the guest at once
  P       press the guest's power button
  B       send a break, which Linux takes for the SysRq key
  H       this list
  Ctrl-A  send Ctrl-A
`

// A console is husk's end of the guest's serial line.
type console struct {
	serial   *vmm.Serial    // nil for none
	stderr   io.Writer      // for what husk says, fit for a terminal in raw mode
	out      *output        // nil for none
	terminal *term.Terminal // nil unless in raw mode
	mixed    bool           // out and stderr lead to the same place
	closers  openFiles
}

// openConsole opens the end of a console that a flag names. On a
// terminal, keys are what the letters after Ctrl-A do. broken is called when
// the guest's output can no longer be written.
func openConsole(e *env, flag, name string, keys map[byte]func(), broken func(error)) (*console, error) {
	c := &console{stderr: e.stderr}
	if name == "none" {
		return c, nil
	}
	if path, ok := strings.CutPrefix(name, serialFile); ok {
		file, err := create(path)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		c.closers = append(c.closers, file)
		c.out = &output{w: file, broken: broken}
		c.serial = &vmm.Serial{Out: c.out}
		return c, nil
	}

	in, err := term.NewInput(e.stdin)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	c.closers = append(c.closers, in)
	c.out = &output{w: e.stdout, broken: broken}
	c.serial = &vmm.Serial{In: in, Out: c.out}
	c.mixed = sameFile(e.stdout, e.stderr)
	if term.IsTerminal(e.stdin) {
		if c.terminal, err = term.MakeRaw(e.stdin, guardName); err != nil {
			c.closers.close()
			return nil, err
		}
		c.stderr = c.terminal.Writer(e.stderr)
		reader, err := term.NewKeys(in, keys)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("standard input: %w", err), c.Close())
		}
		c.closers = openFiles{reader, in}
		c.serial.In = reader
	}
	return c, nil
}

// Close gives the terminal back.
func (c *console) Close() error {
	var err error
	if c.terminal != nil {
		err = c.terminal.Restore()
	}
	c.closers.close()
	return err
}

// sameFile says whether what is written to a and to b comes out in one place.
func sameFile(a, b io.Writer) bool {
	fa, ok := a.(*os.File)
	fb, ok2 := b.(*os.File)
	if !ok || !ok2 {
		return false
	}
	ia, err := fa.Stat()
	ib, err2 := fb.Stat()
	return err == nil && err2 == nil && os.SameFile(ia, ib)
}

// say prints a line from husk, not in the middle of a line of the guest's.
func (c *console) say(format string, args ...any) {
	if c.mixed && c.out.midLine() {
		fmt.Fprintln(c.stderr)
	}
	fmt.Fprintf(c.stderr, "husk: "+format+"\n", args...)
}

// stuck says whether nobody takes the guest's output.
func (c *console) stuck() bool {
	if c.out == nil {
		return false
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return !c.out.writing.IsZero() && time.Since(c.out.writing) >= lastOutput/2
}

// output is where the guest's console goes.
type output struct {
	w      io.Writer
	broken func(error)

	mu      sync.Mutex
	last    byte
	writing time.Time // since when; zero while nothing is written
}

// Write passes p on.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	o.writing = time.Now()
	o.mu.Unlock()
	n, err := o.w.Write(p)
	o.mu.Lock()
	o.writing = time.Time{}
	if n > 0 {
		o.last = p[n-1]
	}
	o.mu.Unlock()
	if err != nil {
		o.broken(err)
	}
	return n, err
}

// midLine says whether the last line is unfinished.
func (o *output) midLine() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last != 0 && o.last != '\n'
}
