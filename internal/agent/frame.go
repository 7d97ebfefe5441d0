package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrProtocol says that the other side does not speak the agent's protocol.
var ErrProtocol = errors.New("agent protocol")

// maxFrame bounds a message in bytes. The longest is a command with its
// environment, which Linux bounds at 2 MiB by default (a quarter of the stack
// limit, execve(2)); JSON may write a byte as six.
const maxFrame = 16 << 20

// firstRead is how much is taken on trust: memory grows with what has arrived,
// not with what the length claims.
const firstRead = 64 << 10

// writeFrame sends v as JSON behind its length: 32 bits, big-endian.
func writeFrame(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if len(b) > maxFrame {
		return fmt.Errorf("%w: a message of %d bytes, at most %d are possible; is the environment that long?", ErrProtocol, len(b), maxFrame)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err = w.Write(append(frame, b...))
	return err
}

// readFrame receives one message. io.EOF means that none begins.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if size > maxFrame {
		return fmt.Errorf("%w: a message of %d bytes, at most %d are possible", ErrProtocol, size, maxFrame)
	}
	b := make([]byte, 0, min(size, firstRead))
	for len(b) < size {
		step := min(size-len(b), max(len(b), firstRead))
		b = append(b, make([]byte, step)...)
		if _, err := io.ReadFull(r, b[len(b)-step:]); err != nil {
			return fmt.Errorf("%w: a message cut short: %w", ErrProtocol, err)
		}
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}
