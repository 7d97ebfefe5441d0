package disk_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/disk"
)

func TestParseSpec(t *testing.T) {
	for in, want := range map[string]disk.Spec{
		"a.img":                   {File: "a.img", Cache: disk.Writeback},
		"a,,b=c.img,ro":           {File: "a,b=c.img", ReadOnly: true, Cache: disk.Writeback},
		"a,,,ro=on":               {File: "a,", ReadOnly: true, Cache: disk.Writeback},
		"a,ro=off,snapshot":       {File: "a", Snapshot: true, Cache: disk.Writeback},
		"a,format=raw,cache=none": {},
		"a,format=qcow2,cache=direct,serial=x,,y=z,discard=on,iodepth=64,snapshot=on": {
			File: "a", Format: disk.Qcow2, Cache: disk.Direct, Serial: "x,y=z", Discard: true, IODepth: 64, Snapshot: true,
		},
		"a,cache=unsafe,serial=": {File: "a", Cache: disk.Unsafe},

		"":                               {},
		",ro":                            {},
		"a\x00b":                         {},
		"a,":                             {},
		"a,format=":                      {},
		"a,format=vmdk":                  {},
		"a,format":                       {},
		"a,ro,ro":                        {},
		"a,ro=yes":                       {},
		"a,ro,snapshot=on":               {},
		"a,iodepth=0":                    {},
		"a,iodepth=1025":                 {},
		"a,iodepth=99999999999999999999": {},
		"a,serial=012345678901234567890": {},
		"a,serial=ä":                     {},
		"a,size=3":                       {},
	} {
		got, err := disk.ParseSpec(in)
		if want.File == "" {
			require.ErrorIs(t, err, disk.ErrSpec, in)
			continue
		}
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"a", "a,,b,ro", "a,format=raw,cache=direct,serial=x,discard=on,iodepth=3,snapshot=on", ",,,", "a,ro=off"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := disk.ParseSpec(s)
		if err != nil {
			require.ErrorIs(t, err, disk.ErrSpec)
			return
		}
		require.NotEmpty(t, spec.File)
		require.LessOrEqual(t, len(spec.Serial), 20)
		require.False(t, spec.ReadOnly && spec.Snapshot)
	})
}
