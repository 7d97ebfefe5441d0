package net

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/ethernet"
	"github.com/huskvm/husk/devices/virtio/virtiotest"
)

const ctrlAll = featCtrlVQ | featCtrlRx | featCtrlRxExtra | featCtrlVLAN | featCtrlMACAddr | featCtrlGuestOffloads | featMQ | guestOffloads

func TestCommands(t *testing.T) {
	table := func(n ...uint32) (p []byte) {
		p = []byte{classMAC, macTableSet}
		for _, n := range n {
			p = append(binary.LittleEndian.AppendUint32(p, n), make([]byte, min(n, 100)*6)...)
		}
		return p
	}
	for name, c := range map[string]struct {
		p    []byte
		need uint64
		ok   bool
	}{
		"promiscuous":           {[]byte{0, 0, 1}, featCtrlRx, true},
		"all multicast off":     {[]byte{0, 1, 0}, featCtrlRx, true},
		"no broadcast":          {[]byte{0, 5, 1}, featCtrlRxExtra, true},
		"unknown mode":          {[]byte{0, 6, 1}, featCtrlRxExtra, false},
		"mode of 2":             {[]byte{0, 0, 2}, featCtrlRx, false},
		"mode without value":    {[]byte{0, 0}, featCtrlRx, false},
		"empty tables":          {table(0, 0), featCtrlRx, true},
		"tables":                {table(3, 64), featCtrlRx, true},
		"one table":             {table(3), featCtrlRx, false},
		"three tables":          {table(1, 1, 1), featCtrlRx, false},
		"table too long":        {table(101, 0), featCtrlRx, false},
		"table that wraps":      {table(0x2aaaaaab, 0), featCtrlRx, false},
		"address":               {[]byte{1, 1, 2, 3, 4, 5, 6, 7}, featCtrlMACAddr, true},
		"multicast address":     {[]byte{1, 1, 3, 3, 4, 5, 6, 7}, featCtrlMACAddr, false},
		"no address":            {[]byte{1, 1, 0, 0, 0, 0, 0, 0}, featCtrlMACAddr, false},
		"long address":          {[]byte{1, 1, 2, 3, 4, 5, 6, 7, 8}, featCtrlMACAddr, false},
		"unknown MAC command":   {[]byte{1, 2, 2, 3, 4, 5, 6, 7}, featCtrlMACAddr, false},
		"VLAN":                  {[]byte{2, 0, 0xff, 0x0f}, featCtrlVLAN, true},
		"VLAN removed":          {[]byte{2, 1, 1, 0}, featCtrlVLAN, true},
		"no VLAN":               {[]byte{2, 0, 0, 0x10}, featCtrlVLAN, false},
		"unknown VLAN command":  {[]byte{2, 2, 1, 0}, featCtrlVLAN, false},
		"announce":              {[]byte{3, 0}, 1 << 21, false},
		"pairs":                 {[]byte{4, 0, 4, 0}, featMQ, true},
		"no pairs":              {[]byte{4, 0, 0, 0}, featMQ, false},
		"too many pairs":        {[]byte{4, 0, 5, 0}, featMQ, false},
		"RSS":                   {[]byte{4, 1, 4, 0}, featMQ, false},
		"offloads":              {[]byte{5, 0, 2, 0, 0, 0, 0, 0, 0, 0}, featCtrlGuestOffloads, true},
		"no such offload":       {[]byte{5, 0, 2, 0, 0, 0, 0, 0, 0, 0x80}, featCtrlGuestOffloads, false},
		"offloads cut short":    {[]byte{5, 0, 2, 0, 0, 0}, featCtrlGuestOffloads, false},
		"unknown class":         {[]byte{6, 0, 1}, 0, false},
		"nothing":               {nil, 0, false},
		"a class and no number": {[]byte{0}, 0, false},
	} {
		d, err := New(newLink(4), mac, nil)
		require.NoError(t, err)
		pairs := func(int) error { return nil }
		require.Equal(t, c.ok, d.command(c.p, ctrlAll, pairs), name)
		require.False(t, d.command(c.p, ctrlAll&^c.need, pairs) && c.need != featCtrlRx, "%s, without the feature", name)
		require.False(t, d.command(c.p, 0, pairs), name)
	}
}

func TestAnAddressHoldsUntilReset(t *testing.T) {
	c := newCard(t, 1)
	c.Start(common | featCtrlVQ | featCtrlMACAddr)
	require.EqualValues(t, ackOK, c.command(2, 1, 1, 2, 3, 4, 5, 6, 7))
	require.Equal(t, []byte{2, 3, 4, 5, 6, 7}, c.Config(6))
	require.NoError(t, c.State.Pause(c.Context()))
	c.State.Resume()
	require.Equal(t, []byte{2, 3, 4, 5, 6, 7}, c.Config(6))
	c.Reset()
	require.Equal(t, mac, c.Config(6))
}

func TestPairsOfQueues(t *testing.T) {
	c := newCard(t, 3)
	c.Start(common | featCtrlVQ | featMQ)
	require.EqualValues(t, ackErr, c.command(6, 4, 0, 4, 0))
	f := newFrame(ethernet.Header{}, 60)
	for _, n := range []int{3, 1, 2, 3} {
		require.EqualValues(t, ackOK, c.command(6, 4, 0, byte(n), 0))
		require.Equal(t, n, c.link.attached())
		for i, lane := range c.link.lanes[:n] {
			lane.give(f)
			got, err := c.Rings[2*i].Do(c.Context(), virtiotest.In(1526))
			require.NoError(t, err)
			require.Equal(t, f, got)
			_, err = c.Rings[2*i+1].Do(c.Context(), virtiotest.Out(f))
			require.NoError(t, err)
			require.Len(t, lane.sent, 1)
			<-lane.sent
		}
	}
	require.NoError(t, c.State.Pause(c.Context()))
	c.State.Resume()
	c.link.lanes[2].give(f)
	_, err := c.Rings[4].Do(c.Context(), virtiotest.In(1526))
	require.NoError(t, err)
	require.Equal(t, 3, c.link.attached())
	require.EqualValues(t, 1, c.Config(7)[6], "no lane was listened to that the link did not serve: %s", c.log)

	c.Start(common | featCtrlVQ | featCtrlRx)
	require.EqualValues(t, ackOK, c.command(2, 0, 0, 1), "without MQ the control queue is another")
	require.Equal(t, 1, c.link.attached())
}

func TestPairsThatTheDriverHasNotSetUp(t *testing.T) {
	c := newCard(t, 3)
	require.True(t, c.Negotiate(common|featCtrlVQ|featMQ))
	c.Rings = make([]*virtiotest.Ring, 7)
	for _, i := range []int{0, 1, 2, 6} {
		c.EnableQueue(i, common)
	}
	c.Go()
	require.EqualValues(t, ackOK, c.command(6, 4, 0, 3, 0))
	require.Equal(t, 2, c.link.attached(), "frames go where somebody listens")
}

func TestOddCommands(t *testing.T) {
	c := newCard(t, 1)
	c.Start(common | featCtrlVQ | featCtrlRx)
	do := func(b ...virtiotest.Buffer) []byte {
		got, err := c.Rings[2].Do(c.Context(), b...)
		require.NoError(t, err)
		return got
	}
	require.Equal(t, []byte{ackErr}, do(virtiotest.In(1)))
	require.Empty(t, do(virtiotest.Out([]byte{0, 0, 1})))
	require.Equal(t, []byte{ackErr}, do(virtiotest.Out(make([]byte, maxCommand+1)), virtiotest.In(1)))
	require.Equal(t, []byte{ackOK}, do(virtiotest.Out([]byte{0}), virtiotest.Out([]byte{0, 1}), virtiotest.In(4)))
}
