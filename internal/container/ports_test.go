package container

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/netdev"
)

// String is a port as the tests write it.
func (p Port) String() string {
	return fmt.Sprintf("%v %d-%d %d/%s", p.Host, p.First, p.Last, p.Guest, p.Proto)
}

// TestParsePorts has the forms that docker 28 takes; "" are those that it refuses, or that a
// user network has not.
func TestParsePorts(t *testing.T) {
	const all = "0.0.0.0 "
	for text, want := range map[string]string{
		"80":                                 all + "0-0 80/tcp",
		"8080:80":                            all + "8080-8080 80/tcp",
		"127.0.0.1:8080:80":                  "127.0.0.1 8080-8080 80/tcp",
		"127.0.0.1::80":                      "127.0.0.1 0-0 80/tcp",
		"8000-8002:80-82":                    all + "8000-8000 80/tcp|" + all + "8001-8001 81/tcp|" + all + "8002-8002 82/tcp",
		"127.0.0.1:53-54:5353-5354/udp":      "127.0.0.1 53-53 5353/udp|127.0.0.1 54-54 5354/udp",
		"8000-8010:80":                       all + "8000-8010 80/tcp",
		"80-82":                              all + "0-0 80/tcp|" + all + "0-0 81/tcp|" + all + "0-0 82/tcp",
		"80/udp":                             all + "0-0 80/udp",
		"80/UDP":                             all + "0-0 80/udp",
		"53:53/udp":                          all + "53-53 53/udp",
		"80:80/":                             all + "80-80 80/tcp",
		"[::1]:80:80":                        "::1 80-80 80/tcp",
		"::1:80:80":                          "::1 80-80 80/tcp",
		"[::]::80":                           ":: 0-0 80/tcp",
		"[1.2.3.4]:1:2":                      "1.2.3.4 1-1 2/tcp",
		":80":                                all + "0-0 80/tcp",
		":80:80":                             all + "80-80 80/tcp",
		"0:80":                               all + "0-0 80/tcp",
		"80-80:80":                           all + "80-80 80/tcp",
		"8001-8001:80-80":                    all + "8001-8001 80/tcp",
		"target=80,published=8080":           all + "8080-8080 80/tcp",
		"Published=53,target=5,protocol=udp": all + "53-53 5/udp",
		"target=80":                          all + "0-0 80/tcp",
		"":                                   "", "80:": "", "80:0": "", "0-0:80": "", "0-10:80": "", "0-0:80-81": "", "0-1:80-81": "", "0:80-81": "", "0-1": "", "70000:80": "", "80:70000": "", "8010-8000:80-90": "", "+80": "", " 80": "",
		"8000:80-82": "", "8000-8002:80-85": "", "80/foo": "", "80/sctp": "", "80/tcp/udp": "", "localhost:80:80": "", "80:80:80": "",
		"1.2.3:80:80": "", "[fe80::1%eth0]:80:80": "", "0x50:80": "", "127.0.0.1:80": "", "*:80:80": "", "-1": "", "1-65535": "",
		"published=80": "", "target=80,mode=host": "", "target=80,x=1": "", "target": "", "target=80,": "",
	} {
		ports, err := ParsePorts(text)
		if want == "" {
			require.ErrorContains(t, err, fmt.Sprintf("--publish %q", text))
			continue
		}
		require.NoError(t, err)
		var got []string
		for _, p := range ports {
			got = append(got, p.String())
		}
		require.Equal(t, want, strings.Join(got, "|"), text)
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, seed := range []string{"80", "8000-8010:80-90", "127.0.0.1::80/udp", "[::1]:1-3:4-6", "target=80,published=8080,protocol=udp"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := ParsePorts(text)
		if err != nil {
			return
		}
		require.NotEmpty(t, ports)
		require.LessOrEqual(t, len(ports), maxPorts)
		for _, p := range ports {
			require.NotZero(t, p.Guest)
			require.True(t, p.Host.IsValid())
			require.LessOrEqual(t, p.First, p.Last)
			require.Contains(t, []string{"tcp", "udp"}, p.Proto)
		}
	})
}

// published are the ports of a request's first network.
func published(t *testing.T, r Request, image v1.Config) []string {
	t.Helper()
	busy := netip.MustParseAddrPort("0.0.0.0:8000")
	list, err := r.networks(image, Host{Free: func(_ string, at netip.AddrPort) bool { return at != busy }})
	require.NoError(t, err)
	var got []string
	for _, p := range list[0].Publish {
		got = append(got, p.String())
	}
	return got
}

func TestPublishing(t *testing.T) {
	image := v1.Config{ExposedPorts: map[string]struct{}{"80/tcp": {}, "9000-9001/udp": {}, "53": {}, "nonsense": {}, "0": {}}}
	require.Empty(t, published(t, Request{}, image))
	require.Equal(t, []string{"0.0.0.0:8001:80/tcp", "0.0.0.0:8002:81/tcp"},
		published(t, Request{Publish: []string{"8000-8010:80", "8000-8002:81"}}, image), "8000 is busy, and 8001 then ours")
	require.Len(t, published(t, Request{Publish: []string{"127.0.0.1:1:80", "127.0.0.2:1:80", "[::1]:1:80", "1:80/udp", "0.0.0.0:2:80", "[::1]:2:80", "80", "80"}}, image), 8)
	require.Equal(t, []string{"127.0.0.1:8001:80/tcp", "0.0.0.0:8002:80/tcp"},
		published(t, Request{Publish: []string{"127.0.0.1:8001:80", "8000-8010:80"}}, image))
	require.Equal(t, []string{"127.0.0.1:1:80/tcp", "0.0.0.0:0:53/tcp", "0.0.0.0:0:9000/udp", "0.0.0.0:0:9001/udp", "0.0.0.0:0:7/tcp"},
		published(t, Request{Publish: []string{"127.0.0.1:1:80"}, PublishAll: true, Expose: []string{"7", "53/tcp"}}, image))

	for text, r := range map[string]Request{
		"none of the ports 8000 to 8001/tcp":       {Publish: []string{"8001:1", "8000-8001:80"}},
		"0.0.0.0:80/tcp of this host is published": {Publish: []string{"80:80", "80:81"}},
		"--publish: 127.0.0.1:8080/tcp":            {Publish: []string{"8080:80", "127.0.0.1:8080:81"}},
		"--publish: 0.0.0.0:8080/tcp":              {Publish: []string{"127.0.0.1:8080:81", "8080:80"}},
		"--publish: 10.0.0.1:53/udp":               {Publish: []string{"[::]:53:53/udp", "10.0.0.1:53:54/udp"}},
		"--publish: [::]:53/tcp":                   {Publish: []string{"0.0.0.0:53:53", "[::]:53:54"}},
		"--publish: [::1]:53/tcp":                  {Publish: []string{"[::]:53:53", "[::1]:53:54"}},
		"--network none; leave one":                {Publish: []string{"80"}, Networks: []string{"none"}},
		"published by a user network":              {Publish: []string{"80"}, Networks: []string{"tap=t0"}},
		`--expose "80:80"`:                         {Expose: []string{"80:80"}},
		"it stands for no network":                 {Networks: []string{"user", "none"}},
		"--network host: a machine has a kernel":   {Networks: []string{"host"}},
		"--network bridge: husk makes no":          {Networks: []string{"bridge"}},
		"cannot be another's":                      {Networks: []string{"container:x"}},
		"is not a network":                         {Networks: []string{"mynet"}},
		"no card to have it":                       {Networks: []string{"none"}, MAC: "02:42:ac:11:00:02"},
		"not the address of a network card":        {MAC: "x"},
		"card, as 02":                              {MAC: "01:00:5e:00:00:01"},
	} {
		_, err := r.networks(image, Host{Free: func(_ string, at netip.AddrPort) bool { return at.Port() != 8000 }})
		require.ErrorContains(t, err, text)
	}
}

func TestNetworks(t *testing.T) {
	r := Request{Networks: []string{"tap=t0,vhost=off", "user,hostloopback=on,net=10.9.0.0/24"}, Publish: []string{"80:80"}, MAC: "02:42:ac:11:00:02"}
	list, err := r.networks(v1.Config{}, Host{})
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, netdev.KindTap, list[0].Kind)
	require.Equal(t, "02:42:ac:11:00:02", list[0].MAC.String())
	require.Empty(t, list[0].Publish)
	require.Len(t, list[1].Publish, 1)
	require.Equal(t, "10.9.0.2", gateway(list).String())
	require.False(t, gateway(nil).IsValid())

	none, err := (&Request{Networks: []string{"none"}}).networks(v1.Config{}, Host{})
	require.NoError(t, err)
	require.Empty(t, none)
}
