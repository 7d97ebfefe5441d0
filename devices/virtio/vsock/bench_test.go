package vsock

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkToGuest is one way from a host program to the guest, which has 4 KiB
// buffers and 256 KiB of credit.
func BenchmarkToGuest(b *testing.B) {
	for name, viaUnix := range map[string]bool{"unix": true, "in-process": false} {
		b.Run(name, func(b *testing.B) {
			d, g := unixDevice(b, Config{})
			g.window = 256 << 10
			done := make(chan struct{})
			g.listen(7, func(c *guestConn) {
				buf := make([]byte, 64<<10)
				for {
					if _, err := c.Read(buf); err != nil {
						break
					}
				}
				_ = c.Close()
				close(done)
			})
			var c net.Conn
			var err error
			if viaUnix {
				c, _ = program(b, d, 7)
			} else {
				c, err = d.Dial(b.Context(), 7)
				require.NoError(b, err)
			}
			p := make([]byte, 64<<10)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, c.Close())
			<-done
		})
	}
}

// BenchmarkToHost is one way from the guest to a host program. The guest is a
// bare one: it sends the same buffers over and over, as the credit allows.
func BenchmarkToHost(b *testing.B) {
	for name, viaUnix := range map[string]bool{"unix": true, "in-process": false} {
		b.Run(name, func(b *testing.B) {
			d, g := unixDevice(b, Config{})
			read := func(c net.Conn) {
				buf := make([]byte, 64<<10)
				for {
					if _, err := c.Read(buf); err != nil {
						_ = c.Close()
						return
					}
				}
			}
			if viaUnix {
				serve(b, d, 80, func(c *net.UnixConn) { read(c) })
			} else {
				l, err := d.Listen(80)
				require.NoError(b, err)
				go func() {
					if c, err := l.Accept(); err == nil {
						read(c)
					}
				}()
			}
			c, err := g.dial(80)
			require.NoError(b, err)
			b.SetBytes(64 << 10)
			b.ReportAllocs()
			p := make([]byte, 64<<10)
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, c.Close())
			require.Equal(b, io.EOF, c.closed())
			quiet(b, d)
		})
	}
}
