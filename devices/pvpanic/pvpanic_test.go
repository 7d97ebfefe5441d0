package pvpanic_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/pvpanic"
)

var _ devices.Device = (*pvpanic.Port)(nil)

func TestLoadTellsEvents(t *testing.T) {
	p := make([]byte, 2)
	pvpanic.New(nil).Load(0, p)
	require.Equal(t, []byte{7, 0xff}, p)
}

func TestStore(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  uint64
		p    []byte
		want []pvpanic.Event
		text string
	}{
		{"panic", 0, []byte{1}, []pvpanic.Event{pvpanic.Panicked}, "panicked"},
		{"crash kernel", 0, []byte{2}, []pvpanic.Event{pvpanic.CrashLoaded}, "crash-loaded"},
		{"shutdown", 0, []byte{4}, []pvpanic.Event{pvpanic.Shutdown}, "shutdown"},
		{"unknown bits", 0, []byte{0xf9}, []pvpanic.Event{pvpanic.Panicked}, "panicked"},
		{"two", 0, []byte{3}, []pvpanic.Event{pvpanic.Panicked | pvpanic.CrashLoaded}, "panicked|crash-loaded"},
		{"nothing known", 0, []byte{0xf8}, nil, ""},
		{"elsewhere", 1, []byte{1}, nil, ""},
		{"empty", 0, nil, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []pvpanic.Event
			pvpanic.New(func(e pvpanic.Event) { got = append(got, e) }).Store(tt.off, tt.p)
			require.Equal(t, tt.want, got)
			if len(got) > 0 {
				require.Equal(t, tt.text, got[0].String())
			}
		})
	}
	require.Equal(t, "none", pvpanic.Event(0).String())
}
