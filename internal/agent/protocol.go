// Package agent runs commands in a guest over one stream of bytes: a
// virtio-serial port or a vsock connection.
//
// The guest's side says hello first, so that the host knows that the guest is
// up, or why it is not. Then both sides speak yamux. A command is four streams
// that the host opens one after the other: control, stdin, stdout and stderr.
// Control carries JSON messages, each behind its length; the other three carry
// bytes, and their end is the end of the file. Files are copied the same way: a
// command without a program, whose input or output is a tar.
package agent

import (
	"io"
	"math"
	"time"

	"github.com/hashicorp/yamux"
)

// version is of the protocol; both sides are built from the same sources, so
// another one means a stale binary.
const version = 3

// hello is the first message, from the guest.
type hello struct {
	Version int    `json:"version"`
	Error   string `json:"error,omitempty"` // why the guest cannot serve
}

// An op is what a command is.
type op string

const (
	opRun      op = ""         // a program
	opUpload   op = "upload"   // the tar on stdin is unpacked into Dir
	opDownload op = "download" // the file or folder Dir is written to stdout as a tar
	opPowerOff op = "poweroff" // the guest powers off
)

// start is the first message on a control stream, from the host.
type start struct {
	Op   op       `json:"op,omitempty"`
	Argv []string `json:"argv"`
	Dir  string   `json:"dir,omitempty"`
	// Owners has an upload keep those of the tar.
	Owners bool     `json:"owners,omitempty"`
	Env    []string `json:"env,omitempty"`
	TTY    bool     `json:"tty,omitempty"`
	Size   Size     `json:"size"`

	User   string   `json:"user,omitempty"`
	Groups []string `json:"groups,omitempty"`
	// NoInput says that there is no standard input: not one that is empty.
	NoInput bool `json:"no_input,omitempty"`
}

// request is what the host sends while a command runs. One field is set.
type request struct {
	Signal int   `json:"signal,omitempty"`
	Resize *Size `json:"resize,omitempty"`
}

// outcome ends a command, from the guest. One that says Started comes before it.
type outcome struct {
	Started bool `json:"started,omitempty"`

	Code      int    `json:"code"`
	Error     string `json:"error,omitempty"` // why it did not start, or a copy failed
	OOMKilled bool   `json:"oom_killed,omitempty"`
}

// A Size is that of a terminal, in characters.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// The exit codes for what cannot be run: a shell's, as container engines have them
// too, and theirs for a command that is not even looked for.
const (
	CodeFailed        = 125 // such as a user that is not there
	CodeNotExecutable = 126
	CodeNotFound      = 127
	codeSignal        = 128 // and the signal's number
)

// streams opens a command: control, stdin, stdout, stderr.
const streams = 4

// config has no timeouts: a machine that has ended closes the connection, and the
// client's heartbeat finds one that hangs.
func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = time.Duration(math.MaxInt64)
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = 0
	c.AcceptBacklog = 16 * streams
	c.LogOutput = io.Discard
	return c
}

// closeAll closes what is open.
func closeAll(list []*yamux.Stream) {
	for _, s := range list {
		if s != nil {
			_ = s.Close()
		}
	}
}
