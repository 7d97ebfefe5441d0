package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// short is long enough for some requests of any load.
const short = 5 * time.Millisecond

func TestDiskLoads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	before := bytes.Repeat([]byte{1}, 4<<20)
	require.NoError(t, os.WriteFile(path, before, 0o600))
	for _, d := range []disk{
		{size: 1 << 20, depth: 1},
		{size: 4096, depth: 32, random: true},
	} {
		r, err := d.on(path, 0, short)
		require.NoError(t, err)
		require.GreaterOrEqual(t, r.Ops, uint64(d.depth), "each thread makes a request")
		require.Equal(t, r.Ops*uint64(d.size), r.Bytes)
		require.Positive(t, r.Seconds)
	}
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after), "reading changes nothing")

	_, err = disk{size: 1 << 20, depth: 1, write: true}.on(path, 0, short)
	require.NoError(t, err)
	after, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, after, len(before))
	require.Equal(t, make([]byte, 1<<20), after[:1<<20])

	_, err = disk{size: 8 << 20, depth: 1}.on(path, 0, short)
	require.ErrorContains(t, err, "too few")
	_, err = disk{size: 4096, depth: 1}.on(path+"-not", 0, short)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// server is the host's side on this machine's loopback.
func server(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() { Serve(l); close(ended) }()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return l.Addr().String()
}

func TestNetworkLoads(t *testing.T) {
	address := server(t)
	for what, load := range map[byte]func(*net.TCPConn, time.Duration) (Result, error){
		askSink: pourInto, askPour: drain, askEcho: trips,
	} {
		c, err := askAt(address, what)
		require.NoError(t, err)
		r, err := load(c, short)
		require.NoError(t, err, "%c", what)
		require.Positive(t, r.Ops)
		require.Positive(t, r.Bytes)
		require.Positive(t, r.Seconds)
		require.NoError(t, c.Close())
	}
	c, err := askAt(address, 'x')
	require.NoError(t, err)
	_, err = trips(c, short)
	require.Error(t, err, "the server hangs up on what it does not know")
	_ = c.Close()
}

func TestGuestTellsWhatItDoes(t *testing.T) {
	want := Result{Ops: 4, Bytes: 16, Seconds: 2}
	good := Load{"good", Disk, func(time.Duration) (Result, error) { return want, nil }}
	bad := Load{"bad", Net, func(time.Duration) (Result, error) { return Result{}, errors.New("no cable") }}
	endless := Load{"endless", Net, func(time.Duration) (Result, error) { return Result{Seconds: 0, Ops: 1}, nil }}
	var console bytes.Buffer
	Guest(&console, []Load{good, bad, endless}, short)
	var events []Event
	var texts []string
	for line := range strings.Lines("boot\r\n\x1b[2J" + console.String()) {
		e, text := Parse(line)
		events, texts = append(events, e), append(texts, text)
	}
	require.Equal(t, []Event{None, Begin, End, Measured, Failed}, events)
	require.Equal(t, "good", texts[1])
	var got Result
	require.NoError(t, json.Unmarshal([]byte(texts[3]), &got))
	want.Name = "good"
	require.Equal(t, want, got)
	require.EqualValues(t, 2, got.Rate())
	require.EqualValues(t, 8, got.Throughput())
	require.Equal(t, "bad: no cable", texts[4])

	console.Reset()
	Guest(&console, nil, short)
	e, _ := Parse(console.String())
	require.Equal(t, Done, e)
}

func TestLoadsByKind(t *testing.T) {
	require.Len(t, Loads(Disk, Net), 9)
	require.Len(t, Loads(Net), 3)
	require.Empty(t, Loads())
	require.True(t, strings.HasPrefix(Server, HostNet.Addr().String()+":"))
	require.True(t, HostNet.Contains(GuestNet.Addr()))
	require.ErrorContains(t, SetUp("no-such-card", GuestNet), "no-such-card")
}
