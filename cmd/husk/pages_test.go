package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsForgotten(t *testing.T) {
	const self = "/usr/bin/husk"
	for line, want := range map[string]bool{
		"00400000-007b4000 r-xp 00000000 00:20 20451473                           /usr/bin/husk": true,
		"007b4000-00ee1000 r--p 003b4000 00:20 20451473                           /usr/bin/husk": true,
		"00ee1000-00f53000 rw-p 00ae1000 00:20 20451473                           /usr/bin/husk": false,
		"00ee1000-00f53000 r--s 00ae1000 00:20 20451473                           /usr/bin/husk": false,
		"00ee1000-00f53000 ---p 00ae1000 00:20 20451473                           /usr/bin/husk": false,
		"7f881aa00000-7f882aa00000 r--p 00000000 00:00 0":                                        false,
		"7f881aa00000-7f882aa00000 r-xp 00000000 00:00 0              /other/usr/bin/husk":       false,
		"7ffd1a5fe000-7ffd1a600000 r-xp 00000000 00:00 0              [vdso]":                    false,
		"nonsense": false,
	} {
		start, end, ok := ownConstant(line, self)
		require.Equal(t, want, ok, line)
		if ok {
			require.Less(t, start, end)
		}
	}
	forgetStart() // and we still run
}
