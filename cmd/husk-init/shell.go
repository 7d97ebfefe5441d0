package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A shell runs lines: commands of its own and programs, one after the other. It
// has no pipes, variables or patterns; a guest that wants those brings a shell.
type shell struct {
	out, err io.Writer
	prompt   string
	code     int  // of the last command: what "echo $?" prints
	ended    bool // by exit
}

// prompt is what the shell asks for a line with.
const prompt = "husk# "

// shellMain is the shell's own process: with a line it runs that, else what it
// reads from the console.
func shellMain(args []string) int {
	// Ctrl-C is for what the shell runs, which it does not keep from it.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	sh := &shell{out: os.Stdout, err: os.Stderr}
	if len(args) > 0 {
		sh.run(args[0])
		return sh.code
	}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil { // else nobody wants to be asked
		sh.prompt = prompt
		fmt.Fprintln(sh.out, `a small shell; "help" lists its commands, "exit" powers off`)
	}
	sh.interact(os.Stdin)
	return sh.code
}

// interact runs lines until there are no more.
func (sh *shell) interact(in io.Reader) {
	lines := bufio.NewReader(in)
	for !sh.ended {
		fmt.Fprint(sh.out, sh.prompt)
		text, err := lines.ReadString('\n')
		if text != "" {
			sh.run(text)
		}
		if err != nil {
			if sh.prompt != "" {
				fmt.Fprintln(sh.out)
			}
			return
		}
	}
}

// run runs a line.
func (sh *shell) run(text string) {
	words, err := split(text, true)
	if err != nil {
		sh.fail(2, err)
		return
	}
	skip := false
	for len(words) > 0 && !sh.ended {
		n := 0
		for n < len(words) && !strings.HasPrefix(words[n], "\x00") {
			n++
		}
		if n > 0 && !skip {
			sh.command(words[:n])
		}
		if n == len(words) {
			return
		}
		switch words[n] {
		case "\x00&&":
			skip = sh.code != 0
		case "\x00||":
			skip = sh.code == 0
		default:
			skip = false
		}
		words = words[n+1:]
	}
}

// command runs one command.
func (sh *shell) command(argv []string) {
	for i, word := range argv {
		argv[i] = strings.ReplaceAll(word, "$?", fmt.Sprint(sh.code))
	}
	if c := builtin(argv[0]); c != nil {
		sh.code = 0
		if err := c.run(sh, argv[1:]); err != nil {
			sh.fail(1, fmt.Errorf("%s: %w", argv[0], err))
		}
		return
	}
	sh.program(argv)
}

// program runs a program that the initramfs has.
func (sh *shell) program(argv []string) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, sh.out, sh.err
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		sh.code = 0
	case errors.As(err, &exit):
		sh.code = exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			sh.code = 128 + int(ws.Signal())
		}
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		sh.fail(127, fmt.Errorf(`%s: no such command; "help" lists the shell's own`, argv[0]))
	default:
		sh.fail(126, err)
	}
}

// fail says why a command failed.
func (sh *shell) fail(code int, err error) {
	sh.code = code
	fmt.Fprintln(sh.err, err)
}
