package kvm

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// A stat is one counter of a made-up statistics file.
type stat struct {
	name   string
	values []uint64
}

// statsFile lays out a file as KVM API §4.133 has it.
func statsFile(stats ...stat) []byte {
	const nameSize = 16
	le := binary.LittleEndian
	descs, data := []byte{}, []byte{}
	for _, s := range stats {
		d := make([]byte, statDescSize+nameSize)
		le.PutUint16(d[6:], uint16(len(s.values)))
		le.PutUint32(d[8:], uint32(len(data)))
		copy(d[statDescSize:], s.name)
		descs = append(descs, d...)
		for _, v := range s.values {
			data = le.AppendUint64(data, v)
		}
	}
	head := make([]byte, statHeaderSize)
	le.PutUint32(head[4:], nameSize)
	le.PutUint32(head[8:], uint32(len(stats)))
	le.PutUint32(head[12:], statHeaderSize) // the id string
	le.PutUint32(head[16:], statHeaderSize+nameSize)
	le.PutUint32(head[20:], uint32(statHeaderSize+nameSize+len(descs)))
	return bytes.Join([][]byte{head, make([]byte, nameSize), descs, data}, nil)
}

func TestStatsFile(t *testing.T) {
	file := bytes.NewReader(statsFile(stat{"exits", []uint64{7}}, stat{"halt_hist", []uint64{1, 0, 4}}, stat{"guest_mode", []uint64{0}}))
	var s Stats
	require.NoError(t, s.parse(file))
	got, err := s.read(file)
	require.NoError(t, err)
	require.Equal(t, map[string]uint64{"exits": 7, "halt_hist": 5, "guest_mode": 0}, got)
}

func TestStatsFileRefusesNonsense(t *testing.T) {
	good := statsFile(stat{"exits", []uint64{7}})
	patch := func(off int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[off:], v)
		return b
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "read header: EOF"},
		{"cut", good[:50], "read 1 descriptors"},
		{"descriptors elsewhere", patch(16, 1<<31), "read 1 descriptors"},
		{"very many", patch(8, 1<<31), "header has 2147483648 counters"},
		{"no names", patch(4, 0), "names of 0 bytes"},
		{"long names", patch(4, 1<<30), "names of 1073741824 bytes"},
		{"data far away", patch(40+8, 1<<31), `counter "exits" ends at`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Stats
			require.ErrorContains(t, s.parse(bytes.NewReader(c.file)), c.want)
		})
	}
	var s Stats
	file := bytes.NewReader(good[:len(good)-1])
	require.NoError(t, s.parse(file))
	_, err := s.read(file)
	require.ErrorIs(t, err, io.EOF)
}
