package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/internal/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAConversation by a socket whose path is longer than an address.
func TestAConversation(t *testing.T) {
	folder := filepath.Join(t.TempDir(), strings.Repeat("long", 50))
	require.NoError(t, os.Mkdir(folder, 0o700))
	l, err := Listen(folder)
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(folder, Socket))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	served := make(chan error, 1)
	go func() { served <- echo(l) }()

	c, err := Dial(t.Context(), folder, "id")
	require.NoError(t, err)
	require.NoError(t, c.Ask(Request{Op: Exec, Exec: &Command{Argv: []string{"x"}, Ends: Ends{Size: agent.Size{Rows: 1}}}}))
	r, err := c.Reply()
	require.NoError(t, err)
	require.Equal(t, Reply{Started: true}, r)
	require.NoError(t, c.Ask(Steer{Signal: 15}))
	_, err = io.WriteString(c.Stdin, "text")
	require.NoError(t, err)
	require.NoError(t, c.Stdin.Close())
	out, err := io.ReadAll(c.Stdout)
	require.NoError(t, err)
	require.Equal(t, "text", string(out))
	r, err = c.Reply()
	require.NoError(t, err)
	require.Equal(t, Reply{Last: true, Code: 15}, r)
	require.NoError(t, c.Close())
	require.NoError(t, <-served)
	require.NoError(t, l.Close())
	_, err = Dial(t.Context(), folder, "id")
	require.Error(t, err)
}

func echo(l net.Listener) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	c, r, err := Accept(context.Background(), conn, "id")
	if err != nil {
		return err
	}
	if r.Op != Exec || r.Exec.Argv[0] != "x" || r.Exec.Size.Rows != 1 {
		return fmt.Errorf("a request %v", r)
	}
	if err := c.Answer(Reply{Started: true}); err != nil {
		return err
	}
	s, err := c.Steer()
	if err != nil {
		return err
	}
	if _, err := io.Copy(c.Stdout, c.Stdin); err != nil {
		return err
	}
	c.Finish(Reply{Code: s.Signal})
	return nil
}

func TestAnotherVersion(t *testing.T) {
	for answer, want := range map[string]string{
		`{"husk_machine":99,"id":"id"}` + "\n":   "speaks version 99",
		`{"husk_machine":1,"id":"other"}` + "\n": `that of machine "other"`,
		"HTTP/1.1 400 Bad Request\r\n\r\n":       "invalid character",
		strings.Repeat("x", maxHello+1):          "without an end",
		`{"husk_machine":1,"id":"id"`:            "EOF",
	} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.WriteString(theirs, answer)
			_ = theirs.Close()
		}()
		_, err := Client(t.Context(), ours, "id")
		require.ErrorContains(t, err, want)
	}
}

// TestNoHello: a client that gives up does not wait for one.
func TestNoHello(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	_, err := Client(ctx, ours, "id")
	require.ErrorIs(t, err, why)
}

// TestALongMessage is refused before it fills the memory.
func TestALongMessage(t *testing.T) {
	d := newDecoder(io.MultiReader(strings.NewReader(`{"path":"`), endless{}))
	require.ErrorContains(t, d.next(new(Request)), "more than")
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// FuzzDecoder: whatever comes, messages or an error do.
func FuzzDecoder(f *testing.F) {
	for _, v := range []any{
		Request{Op: Exec, Exec: &Command{Argv: []string{"a"}, Env: []string{"b=c"}}},
		Request{Op: Stop, Timeout: time.Second},
		Steer{Resize: &agent.Size{Rows: 1, Cols: 2}},
		Reply{Last: true, Stats: &Usage{}},
	} {
		b, err := json.Marshal(v)
		require.NoError(f, err)
		f.Add(append(append(b, '\n'), b...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDecoder(bytes.NewReader(b))
		for n := 0; ; n++ {
			var r Request
			if err := d.next(&r); err != nil {
				return
			}
			require.LessOrEqual(t, n, len(b))
		}
	})
}

// FuzzHello: whatever a process says first, a client gets a hello or an error, and reads
// nothing behind it.
func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"husk_machine":1,"id":"x"}` + "\nmore"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var h hello
		if readHello(r, &h) == nil {
			require.Equal(t, bytes.IndexByte(b, '\n')+1, len(b)-r.Len())
		}
	})
}
