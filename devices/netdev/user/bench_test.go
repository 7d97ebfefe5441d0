package user

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkTCP carries a stream between the guest's stack and a server on the
// host's loopback. The guest is a second stack in this process, so it shares the
// processors, and costs more than Linux in a guest.
func BenchmarkTCP(b *testing.B) {
	const piece = 1 << 20
	for _, mtu := range []int{1500, 65520} {
		for name, o := range offloads {
			b.Run(fmt.Sprintf("out/mtu=%d/%s", mtu, name), func(b *testing.B) {
				drained := make(chan int64, 1)
				port := listen(b, func(c *net.TCPConn) {
					n, _ := io.Copy(io.Discard, c)
					drained <- n
				})
				g := plug(b, newLink(b, Config{HostLoopback: true, MTU: mtu}), o)
				c, err := g.dial(b, port)
				require.NoError(b, err)
				p := make([]byte, piece)
				b.SetBytes(piece)
				var sent int64
				for b.Loop() {
					n, err := c.Write(p)
					require.NoError(b, err)
					sent += int64(n)
				}
				require.NoError(b, c.CloseWrite())
				require.Equal(b, sent, <-drained)
			})
			b.Run(fmt.Sprintf("in/mtu=%d/%s", mtu, name), func(b *testing.B) {
				port := listen(b, func(c *net.TCPConn) {
					p := make([]byte, piece)
					for {
						if _, err := c.Write(p); err != nil {
							return
						}
					}
				})
				g := plug(b, newLink(b, Config{HostLoopback: true, MTU: mtu}), o)
				c, err := g.dial(b, port)
				require.NoError(b, err)
				p := make([]byte, piece)
				b.SetBytes(piece)
				for b.Loop() {
					_, err := io.ReadFull(c, p)
					require.NoError(b, err)
				}
				c.Close() //nolint:errcheck // a benchmark
			})
		}
	}
}
