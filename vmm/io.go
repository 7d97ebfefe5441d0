package vmm

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/devices/netdev/tap"
	"github.com/huskvm/husk/devices/virtio/blk"
	"github.com/huskvm/husk/devices/virtio/net"
)

// IOStats count what passed through disks and network cards, in bytes as the guest sees
// them, and in requests and frames.
type IOStats struct {
	ReadBytes  uint64 `json:"read_bytes"`
	WriteBytes uint64 `json:"write_bytes"`
	Reads      uint64 `json:"reads"`
	Writes     uint64 `json:"writes"`

	ReceivedBytes  uint64 `json:"received_bytes"`
	SentBytes      uint64 `json:"sent_bytes"`
	ReceivedFrames uint64 `json:"received_frames"`
	SentFrames     uint64 `json:"sent_frames"`
}

// ioCounters are what counts that.
type ioCounters struct {
	disks []*blk.Device
	cards []*net.Device
	taps  []string // those whose queues the host's kernel serves, and counts
}

func (c *ioCounters) addCard(d *net.Device, link netdev.Link, served bool) {
	if t, is := link.(*tap.Link); is && served {
		c.taps = append(c.taps, t.Name())
		return
	}
	c.cards = append(c.cards, d)
}

func (c *ioCounters) stats() (s IOStats) {
	for _, d := range c.disks {
		n := d.Stats()
		s.ReadBytes, s.Reads = s.ReadBytes+n.ReadBytes, s.Reads+n.Reads
		s.WriteBytes, s.Writes = s.WriteBytes+n.WriteBytes, s.Writes+n.Writes
	}
	for _, d := range c.cards {
		n := d.Stats()
		s.ReceivedBytes, s.ReceivedFrames = s.ReceivedBytes+n.RxBytes, s.ReceivedFrames+n.RxFrames
		s.SentBytes, s.SentFrames = s.SentBytes+n.TxBytes, s.SentFrames+n.TxFrames
	}
	for _, name := range c.taps {
		// What the host sends at the interface, the guest receives.
		s.ReceivedBytes, s.ReceivedFrames = s.ReceivedBytes+counted(name, "tx_bytes"), s.ReceivedFrames+counted(name, "tx_packets")
		s.SentBytes, s.SentFrames = s.SentBytes+counted(name, "rx_bytes"), s.SentFrames+counted(name, "rx_packets")
	}
	return s
}

// counted is what the host has counted at an interface, since that was made; 0 where it
// is gone.
func counted(name, what string) uint64 {
	b, err := os.ReadFile(filepath.Join("/sys/class/net", name, "statistics", what))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}
