package netdev

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseOptions(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	for text, want := range map[string]Options{
		"user":          {Kind: KindUser, Queues: 1, Net: DefaultNet},
		"none":          {Kind: KindNone, Queues: 1},
		"tap=vm0":       {Kind: KindTap, Queues: 1, Name: "vm0", Vhost: VhostAuto},
		"tap=vm%d":      {Kind: KindTap, Queues: 1, Name: "vm%d", Vhost: VhostAuto},
		"user,mtu=1280": {Kind: KindUser, Queues: 1, Net: DefaultNet, MTU: 1280},
		"user,net=192.168.7.0/27,hostloopback=on,mtu=65520,mac=52:54:00:12:34:56": {
			Kind: KindUser, Queues: 1, Net: netip.MustParsePrefix("192.168.7.0/27"),
			HostLoopback: true, MTU: 65520, MAC: mac,
		},
		"user,hostloopback=off":          {Kind: KindUser, Queues: 1, Net: DefaultNet},
		"tap=abcdefghijklmno,queues=4":   {Kind: KindTap, Queues: 4, Name: "abcdefghijklmno", Vhost: VhostAuto},
		"tap=t,mac=52-54-00-12-34-56":    {Kind: KindTap, Queues: 1, Name: "t", Vhost: VhostAuto, MAC: mac},
		"tap=t,vhost=on,queues=2":        {Kind: KindTap, Queues: 2, Name: "t", Vhost: VhostOn},
		"tap=t,vhost=off":                {Kind: KindTap, Queues: 1, Name: "t", Vhost: VhostOff},
		"tap=t,vhost=auto":               {Kind: KindTap, Queues: 1, Name: "t", Vhost: VhostAuto},
		"tap=t,vhost=":                   {},
		"tap=t,vhost=yes":                {},
		"tap=t,vhost=on,vhost=on":        {},
		"user,vhost=on":                  {},
		"user,vhost=off":                 {},
		"none,vhost=off":                 {},
		"tap=br/0":                       {},
		"tap=a b":                        {},
		"tap=a:b":                        {},
		"tap=%s":                         {},
		"tap=%d%d":                       {},
		"tap=..":                         {},
		"tap=":                           {},
		"tap":                            {},
		"tap=abcdefghijklmnop":           {},
		"":                               {},
		"bridge":                         {},
		"user=x":                         {},
		"none=x":                         {},
		"none,mtu=1500":                  {},
		"user,":                          {},
		"user,mtu":                       {},
		"user,mtu=":                      {},
		"user,mtu=1279":                  {},
		"user,mtu=65521":                 {},
		"user,mtu=-1":                    {},
		"user,mtu=99999999999999999999":  {},
		"user,mtu=1500,mtu=1500":         {},
		"user,queues=2":                  {},
		"user,hostloopback=yes":          {},
		"tap=a,queues=0":                 {},
		"tap=a,queues=65":                {},
		"tap=a,net=10.0.0.0/24":          {},
		"tap=a,hostloopback=on":          {},
		"user,net=10.0.2.1/24":           {},
		"user,net=10.0.2.0/28":           {},
		"user,net=10.0.2.0":              {},
		"user,net=fd00::/64":             {},
		"user,net=127.0.0.0/8":           {},
		"user,net=0.0.0.0/8":             {},
		"user,net=224.0.0.0/24":          {},
		"user,net=240.0.0.0/24":          {},
		"user,net=169.254.0.0/16":        {},
		"user,mac=01:00:5e:00:00:01":     {},
		"user,mac=00:00:00:00:00:00":     {},
		"user,mac=52:54:00:12:34":        {},
		"user,mac=52:54:00:12:34:56:7:8": {},
		"user,mac=0011.2233.4455.6677":   {},
	} {
		got, err := ParseOptions(text)
		if want.Kind == "" {
			require.ErrorIs(t, err, ErrOptions, text)
			require.ErrorContains(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestParsePublish(t *testing.T) {
	at := netip.MustParseAddrPort
	for text, want := range map[string]Publish{
		"2222:22":              {"tcp", at("127.0.0.1:2222"), 22},
		"0:80/tcp":             {"tcp", at("127.0.0.1:0"), 80},
		"5353:53/udp":          {"udp", at("127.0.0.1:5353"), 53},
		"0.0.0.0:80:8080":      {"tcp", at("0.0.0.0:80"), 8080},
		"[::1]:80:8080/udp":    {"udp", at("[::1]:80"), 8080},
		"[::]:65535:65535":     {"tcp", at("[::]:65535"), 65535},
		"[::ffff:1.2.3.4]:1:2": {"tcp", at("1.2.3.4:1"), 2},
		"":                     {}, ":": {}, "22": {}, "22:": {}, ":22": {}, "a:b": {}, "1:0": {}, "65536:1": {}, "1:65536": {},
		"1:2:3:4": {}, "::1:80:80": {}, "localhost:80:80": {}, "80:80/sctp": {}, "80:80/": {}, "-1:80": {}, "+1:80": {},
		"1.2.3:80:80": {}, ":80:80": {}, "[::1]80:80": {}, "80:80/tcp/udp": {},
	} {
		got, err := ParsePublish(text)
		if want.Proto == "" {
			require.ErrorIs(t, err, ErrOptions, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
		again, err := ParsePublish(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
}

func TestStableMAC(t *testing.T) {
	a := StableMAC("web", 0)
	require.Equal(t, a, StableMAC("web", 0))
	require.Equal(t, "0e:bd:37:2e:08:43", a.String(), "it changed; every guest's lease would")
	seen := map[string]bool{}
	for _, name := range []string{"", "web", "web1", "db"} {
		for i := range 12 {
			mac := StableMAC(name, i)
			require.Len(t, mac, 6)
			require.EqualValues(t, 2, mac[0]&3, "local, not multicast")
			require.False(t, seen[mac.String()])
			seen[mac.String()] = true
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("user,net=192.168.7.0/27,hostloopback=on,mtu=65520,mac=52:54:00:12:34:56")
	f.Add("tap=vm%d,queues=4,mtu=9000")
	f.Add("none")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOptions(text)
		if err != nil {
			require.ErrorIs(t, err, ErrOptions)
			return
		}
		require.GreaterOrEqual(t, o.Queues, 1)
		switch o.Kind {
		case KindUser:
			require.True(t, o.Net.Addr().Is4())
			require.LessOrEqual(t, o.Net.Bits(), 27)
		case KindTap:
			require.NotEmpty(t, o.Name)
			require.LessOrEqual(t, len(o.Name), 15)
			require.False(t, strings.ContainsAny(o.Name, "/: \x00\n"))
		default:
			require.Equal(t, KindNone, o.Kind)
		}
	})
}

func FuzzParsePublish(f *testing.F) {
	f.Add("2222:22")
	f.Add("0.0.0.0:0:53/udp")
	f.Add("[::1]:80:8080/tcp")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePublish(text)
		if err != nil {
			require.ErrorIs(t, err, ErrOptions)
			return
		}
		require.NotZero(t, p.Guest)
		again, err := ParsePublish(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}
