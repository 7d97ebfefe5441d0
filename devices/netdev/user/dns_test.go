package user

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// resolver is a fake of a resolver on the loopback, at UDP and TCP port of the same
// number, that turns queries into upper case.
func resolver(t *testing.T) (port uint16, queries *atomic.Int32) {
	t.Helper()
	queries = new(atomic.Int32)
	upper := func(p []byte) []byte {
		queries.Add(1)
		return append(append([]byte{}, p[:2]...), strings.ToUpper(string(p[2:]))...)
	}
	port = listenUDP(t, func(p []byte) []byte {
		if strings.Contains(string(p), "forged") { // an answer to something else
			return append([]byte{^p[0]}, p[1:]...)
		}
		return upper(p)
	})
	return port, queries
}

func conf(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
	return path
}

func TestDNSByUDP(t *testing.T) {
	port, queries := resolver(t)
	// The first does not listen: 127.0.0.2 has no such port.
	l := newLink(t, Config{ResolvConf: conf(t, "# comment", "nameserver 127.0.0.2", "nameserver 127.0.0.1"), dnsPort: port})
	g := plug(t, l, 0)
	c := g.dialUDP(t, l.addrs.dns, dnsPort)
	for range 3 {
		_, err := c.Write([]byte("\x12\x34 example.org"))
		require.NoError(t, err)
		p := make([]byte, 100)
		n, err := c.Read(p)
		require.NoError(t, err)
		require.Equal(t, "\x12\x34 EXAMPLE.ORG", string(p[:n]))
	}
	require.EqualValues(t, 3, queries.Load())
	for _, junk := range []string{"", "short", "\x12\x34 forged forged"} {
		_, err := c.Write([]byte(junk))
		require.NoError(t, err)
	}
	_, err := c.Write([]byte("\x56\x78 still there"))
	require.NoError(t, err)
	p := make([]byte, 100)
	n, err := c.Read(p)
	require.NoError(t, err)
	require.Equal(t, "\x56\x78 STILL THERE", string(p[:n]))
}

func TestDNSByTCP(t *testing.T) {
	port := listen(t, echo)
	l := newLink(t, Config{ResolvConf: conf(t, "nameserver 127.0.0.2", "nameserver 127.0.0.1"), dnsPort: port})
	g := plug(t, l, 0)
	c, err := gonet.DialTCP(g.stack, g.at(l.addrs.dns, dnsPort), ipv4.ProtocolNumber)
	require.NoError(t, err)
	exchange(t, c, 1000)
	require.NoError(t, c.Close())
	_, err = gonet.DialTCP(g.stack, g.at(l.addrs.dns, dnsPort+1), ipv4.ProtocolNumber)
	require.ErrorContains(t, err, "refused")
}

func TestResolvers(t *testing.T) {
	path := conf(t, "search a", "nameserver 192.0.2.1 # c", " nameserver\t2001:db8::1", "nameserver fe80::1%lo", "nameserver 192.0.2.4", "nameserver x")
	r := resolvers{path: path, port: 53}
	require.Equal(t, "[192.0.2.1:53 [2001:db8::1]:53 [fe80::1%lo]:53]", sprint(r.servers()))
	require.NoError(t, os.WriteFile(path, []byte("nameserver 192.0.2.9\n"), 0o600))
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1, 0)))
	require.Equal(t, "[192.0.2.9:53]", sprint(r.servers()))
	require.NoError(t, os.Remove(path))
	require.Equal(t, "[127.0.0.1:53]", sprint(r.servers()))
}

func sprint[T interface{ String() string }](all []T) string {
	var words []string
	for _, a := range all {
		words = append(words, a.String())
	}
	return "[" + strings.Join(words, " ") + "]"
}
