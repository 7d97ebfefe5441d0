package blk

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

// TestStats counts what was done, and not what was refused.
func TestStats(t *testing.T) {
	dev, err := New(Config{Disk: newDisk(64), Size: 64 * sectorSize})
	require.NoError(t, err)
	d := virtiotest.NewDriver(t, dev, nil)
	d.Start(d.Offered())
	_, st := do(t, d, 0, header(typeOut, 0), make([]byte, 1024))
	require.Equal(t, statusOK, st)
	read(t, d, 0, 512)
	_, st = do(t, d, 512, header(typeIn, 1<<40))
	require.Equal(t, statusIOErr, st)
	require.Equal(t, Stats{Reads: 1, ReadBytes: 512, Writes: 1, WriteBytes: 1024}, dev.Stats())
}
