package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/tests/faults"
)

// TestSmokeFindsTrouble: what goes wrong in a kernel that runs is found, by its kind,
// with its trace; a hang, with where it is.
func TestSmokeFindsTrouble(t *testing.T) {
	need(t)
	tests := []struct {
		name, args string
		verdict    result.Verdict
		kinds      string // of the findings, joined
		trace      string // in the first one's
	}{
		{"null-pointer", bad(faults.NullPointer), result.Detected, "oops", "Call Trace:"},
		{"protection", bad(faults.Protection), result.Detected, "general-protection-fault", "do_init_module"},
		{"divide-error", bad(faults.DivideError), result.Detected, "oops", "RIP: "},
		{"bug", bad(faults.Bug), result.Detected, "bug", "invalid opcode: 0000"},
		{"warn", bad(faults.Warn), result.Detected, "warning", "do_init_module"},
		{"soft lockup", bad(faults.Spin) + " watchdog_thresh=2", result.Detected, "soft-lockup", "watchdog_timer_fn"},
		{"out of memory", "husk.do=oom", result.Detected, "out-of-memory", "Out of memory: Killed process"},
		{"hang", bad(faults.Hang), result.Hang, "", ""},
	}
	var file strings.Builder
	fmt.Fprintf(&file, "defaults: {kernel: %q, initrd: %q, memory: 256M, no-output: 45s, retries: 0, steps: [{expect: never}]}\ncases:\n",
		kernel(t, "cloud", "vmlinuz"), troubleInitrd(t, "cloud"))
	for _, tt := range tests {
		fmt.Fprintf(&file, "- {name: %q, append: %q}\n", tt.name, "loglevel=5 "+tt.args)
	}
	path := filepath.Join(t.TempDir(), "trouble.yaml")
	require.NoError(t, os.WriteFile(path, []byte(file.String()), 0o600))
	r, results := smoke(t, "-j", "2", path)
	r.wantCode(t, 4)
	require.Equal(t, len(tests), len(results.Cases))
	for i, tt := range tests {
		a := results.Cases[i].Attempts[0]
		require.Equal(t, tt.verdict, a.Verdict, "%s: %s", tt.name, a.Reason)
		require.Equal(t, "init", a.Stage, tt.name)
		var kinds []string
		for _, f := range a.Findings {
			if f.Event == a.Findings[0].Event {
				kinds = append(kinds, f.Kind)
			}
		}
		require.Contains(t, strings.Join(kinds, " "), tt.kinds, tt.name)
		if tt.trace != "" {
			require.Equal(t, tt.kinds, kinds[0], tt.name)
			require.Contains(t, strings.Join(a.Findings[0].Trace, "\n"), tt.trace, tt.name)
			continue
		}
		// A module's text has no name of its own, nor tables to unwind it by.
		require.Contains(t, a.VCPUs[0].Registers, "interrupts off")
		require.Contains(t, a.VCPUs[0].Symbol, "module text 0x")
	}
}
