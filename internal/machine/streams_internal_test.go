package machine

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/machine/control"
)

// TestInputThatIsNotTaken: "yes | husk run -i IMAGE true" ends with the command, whatever waits
// to be sent to it.
func TestInputThatIsNotTaken(t *testing.T) {
	m := &Machine{spec: Spec{ID: strings.Repeat("a", 64)}}
	ours, theirs := net.Pipe()
	in, typing, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	served := make(chan error)
	go func() {
		c, _, err := control.Accept(context.Background(), theirs, m.ID())
		if err == nil {
			// More than a stream and a pipe hold: then the client waits with some of it.
			_, err = typing.Write(make([]byte, 256<<10+64<<10+1))
			_, _, _ = c.Stdout.Close(), c.Stderr.Close(), typing.Close()
		}
		if err == nil {
			_ = c.Answer(control.Reply{Last: true, Code: 3}) // who has it may be gone at once
			<-c.Gone()
		}
		served <- err
	}()
	conn, err := control.Client(t.Context(), ours, m.ID())
	require.NoError(t, err)
	code, _, err := m.converse(t.Context(), conn, control.Request{Op: control.Attach}, Streams{Stdin: in})
	require.NoError(t, err)
	require.Equal(t, 3, code)
	require.NoError(t, <-served)
}
