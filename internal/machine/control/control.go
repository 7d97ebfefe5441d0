// Package control is what the clients of a machine and its process say to each other,
// over a Unix socket in the machine's folder.
//
// A connection is one request. The process says hello first, so that a client of
// another version fails with words. Then both sides speak yamux: the client opens four
// streams, control, stdin, stdout and stderr. Control carries JSON values: from the client
// a Request, and then Steers; from the process Replies, up to the one that is the Last. The
// other streams carry bytes, and their end is the end of the file.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/huskvm/husk/internal/agent"
	"github.com/huskvm/husk/vmm"
)

// Version is of the protocol. The process of a machine may have been started by an older
// husk, or a newer one.
const Version = 1

// Socket is the name of the socket in the machine's folder.
const Socket = "control"

// ErrProtocol is that the other side speaks something else.
var ErrProtocol = errors.New("machine's control socket")

// hello is the first message, from the process.
type hello struct {
	Version int    `json:"husk_machine"`
	ID      string `json:"id"`
}

// An Op is what a client wants.
type Op string

// The requests.
const (
	Start    Op = "start"    // by who has started the process: let the command begin. Attach may be set
	Attach   Op = "attach"   // be at the command's ends, until its end
	Exec     Op = "exec"     // run another command
	Signal   Op = "signal"   // send Number to the command
	Stop     Op = "stop"     // end it, gently at first
	Kill     Op = "kill"     // end it at once
	Wait     Op = "wait"     // for its end
	Pause    Op = "pause"    //
	Resume   Op = "resume"   //
	Stats    Op = "stats"    // what has been used so far
	Upload   Op = "upload"   // unpack the tar on stdin into Path
	Download Op = "download" // write Path to stdout as a tar
)

// A Request is what a client wants.
type Request struct {
	Op      Op            `json:"op"`
	Attach  *Ends         `json:"attach,omitempty"`
	Exec    *Command      `json:"exec,omitempty"`
	Number  int           `json:"number,omitempty"`  // of a signal
	Timeout time.Duration `json:"timeout,omitempty"` // for Stop; negative to wait for ever
	Path    string        `json:"path,omitempty"`
	Owners  bool          `json:"owners,omitempty"` // an Upload keeps those of the tar
}

// Ends are those of a command's that a client takes.
type Ends struct {
	Stdin bool       `json:"stdin,omitempty"`
	Size  agent.Size `json:"size"` // of the terminal, where there is one
}

// A Command is one besides the main one.
type Command struct {
	Ends
	Argv   []string `json:"argv"`
	Env    []string `json:"env,omitempty"`
	Dir    string   `json:"dir,omitempty"`
	User   string   `json:"user,omitempty"`
	Groups []string `json:"groups,omitempty"`
	TTY    bool     `json:"tty,omitempty"`
	// Detached is that the client does not wait for its end.
	Detached bool `json:"detached,omitempty"`
}

// A Steer is sent while a command runs. One field is set.
type Steer struct {
	Signal int         `json:"signal,omitempty"`
	Resize *agent.Size `json:"resize,omitempty"`
	// Detach says that the client goes on purpose; its input has not ended.
	Detach bool `json:"detach,omitempty"`
}

// A Reply is an answer.
type Reply struct {
	// Started says that the command runs. Of a request for one it comes first.
	Started bool `json:"started,omitempty"`
	// Last says that this is all.
	Last bool `json:"last,omitempty"`
	// Error is why it could not be done, and Code is then 125, 126 or 127 where a command
	// could not be started.
	Error string `json:"error,omitempty"`
	// Code is a command's exit code.
	Code  int    `json:"code"`
	Stats *Usage `json:"stats,omitempty"`
}

// A Usage is what a machine has used so far.
type Usage struct {
	At     time.Time       `json:"at"`
	CPU    time.Duration   `json:"cpu_ns"` // of the machine's process, the guest's processors included
	CPUs   int             `json:"cpus"`
	Memory vmm.MemoryStats `json:"memory"`
	IO     vmm.IOStats     `json:"io"`
}

// config has no timeouts: both sides are on one host, and the end of a process is the
// end of its connections.
func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = time.Duration(math.MaxInt64)
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = 0
	c.LogOutput = io.Discard
	return c
}

// maxMessage bounds a message in bytes: the longest is a command with its environment,
// which Linux bounds at 2 MiB by default (execve(2)); JSON may write a byte as six.
const maxMessage = 16 << 20

// A decoder reads messages.
type decoder struct {
	limit io.LimitedReader
	json  *json.Decoder
}

func newDecoder(r io.Reader) *decoder {
	d := &decoder{limit: io.LimitedReader{R: r}}
	d.json = json.NewDecoder(&d.limit)
	return d
}

// next reads one message. io.EOF means that there are no more.
func (d *decoder) next(v any) error {
	d.limit.N = maxMessage
	err := d.json.Decode(v)
	if err == nil || errors.Is(err, io.EOF) && d.limit.N > 0 {
		return err
	}
	if d.limit.N <= 0 {
		err = fmt.Errorf("a message of more than %d bytes", maxMessage)
	}
	return fmt.Errorf("%w: %w", ErrProtocol, err)
}
