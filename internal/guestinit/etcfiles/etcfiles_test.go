package etcfiles

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHosts(t *testing.T) {
	require.Equal(t, localHosts, string(Hosts(nil, nil, "web", "")))
	own := []netip.Addr{netip.MustParseAddr("10.0.2.15"), netip.MustParseAddr("fd00::5")}
	require.Equal(t, localHosts+"192.0.2.1\tdb db.example\n10.0.2.15\tweb\nfd00::5\tweb\n",
		string(Hosts([]string{"192.0.2.1 db db.example"}, own, "web", "")))
	require.Equal(t, localHosts+"10.0.2.15\tweb.example.com web\n", string(Hosts(nil, own[:1], "web", "example.com")))
	require.Equal(t, localHosts+"10.0.2.15\tweb.example.com web\n", string(Hosts(nil, own[:1], "web.example.com", "")))
	require.Equal(t, localHosts, string(Hosts(nil, own, "", "")))
	require.Equal(t, "web\n", string(Hostname("web")))
}

func TestResolvConf(t *testing.T) {
	require.Empty(t, ResolvConf(nil, nil, nil))
	require.Equal(t, "nameserver 10.0.2.3\nnameserver 1.1.1.1\nsearch a.example b.example\noptions ndots:2 timeout:1\n",
		string(ResolvConf([]string{"10.0.2.3", "1.1.1.1"}, []string{"a.example", "b.example"}, []string{"ndots:2", "timeout:1"})))
	require.Equal(t, "nameserver 10.0.2.3\n", string(ResolvConf([]string{"10.0.2.3"}, []string{"."}, nil)))
}
