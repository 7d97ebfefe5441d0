package pci

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// eventfds is a sink whose vector v is eventfd 100+v.
type eventfds struct{ *sink }

func (eventfds) FD(vector int) int { return 100 + vector }

// TestWhoMaySignalInTheFunctionsStead: the kernel, while Trigger would do no more
// than to signal an eventfd, and it is told when that ends.
func TestWhoMaySignalInTheFunctionsStead(t *testing.T) {
	r := newRig(t)
	c := nic(eventfds{&sink{}})
	var f *Function
	direct := []int{}
	c.MSIX.Changed = func() {
		if now := f.Direct(1); now != direct[len(direct)-1] {
			direct = append(direct, now)
		}
	}
	f, err := r.Add(1, 0, c)
	require.NoError(t, err)
	direct = append(direct, f.Direct(1))
	v := probe(t, r)
	changes := func(want ...int) {
		t.Helper()
		require.Equal(t, want, append([]int(nil), direct[1:]...))
		direct = direct[len(direct)-1:]
	}

	v.command(CommandMemory | CommandBusMaster)
	v.control(msixEnable)
	v.message(1, lapic, 0x31)
	changes()
	v.mask(1, false)
	changes(101)
	v.mask(1, true)
	changes(-1)
	v.mask(1, false)
	changes(101)
	v.control(msixEnable | msixMaskAll)
	v.control(msixEnable)
	changes(-1, 101)
	v.control(0)
	v.control(msixEnable)
	changes(-1, 101)
	v.command(CommandMemory)
	v.command(CommandMemory | CommandBusMaster)
	changes(-1, 101)
	v.write(1, entryAddress, 0x1000) // nobody's
	changes(-1)
	v.message(1, lapic, 0x31)
	changes(101)
	f.Reset()
	changes(-1)

	require.Equal(t, -1, f.Direct(0), "masked since power-on")
	require.Equal(t, -1, f.Direct(5), "does not exist")
	require.Equal(t, -1, f.Direct(-1))
	require.Equal(t, -1, new(Function).Direct(0), "without MSI-X")
}

func TestASinkWithoutEventfds(t *testing.T) {
	f, v, _ := newVectors(t, 1)
	v.command(CommandMemory | CommandBusMaster)
	v.control(msixEnable)
	v.message(0, lapic, 0x31)
	v.mask(0, false)
	require.Equal(t, -1, f.Direct(0))
}
