package agent

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The parts of a frame of yamux's: a head of 12 bytes with version, type, flags (2 bytes),
// stream (4) and length (4), big-endian, behind which data has that many bytes
// (github.com/hashicorp/yamux/blob/master/spec.md).
const (
	headSize  = 12
	frameData = 0 // a type
	flagOpens = 1 // SYN: it opens a stream, or is a question
)

// An incoming connection ends when the guest opens a stream or asks something, which an
// agent never does: yamux would start a goroutine for each question, and keep it for as long
// as the guest does not read the answer.
type incoming struct {
	io.ReadWriteCloser
	head    [headSize]byte
	have    int    // bytes of head
	payload uint32 // bytes that follow
}

func (c *incoming) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		if c.payload > 0 {
			skip := min(uint32(len(rest)), c.payload) // a Read is shorter than 4 GiB
			c.payload -= skip
			rest = rest[skip:]
			continue
		}
		k := copy(c.head[c.have:], rest)
		c.have += k
		rest = rest[k:]
		if c.have < headSize {
			break
		}
		c.have = 0
		if binary.BigEndian.Uint16(c.head[2:])&flagOpens != 0 {
			return 0, fmt.Errorf("%w: the guest asks its host", ErrProtocol)
		}
		if c.head[1] == frameData {
			c.payload = binary.BigEndian.Uint32(c.head[8:])
		}
	}
	return n, err
}
