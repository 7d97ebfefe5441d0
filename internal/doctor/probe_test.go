package doctor

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/kvm/kvmtest"
)

func TestProbeRing0(t *testing.T) {
	sys := kvmtest.Need(t)
	p, err := ProbeRing0(sys)
	require.NoError(t, err)
	t.Log(p, p.Took)
	if _, err := os.Stat("/sys/module/kvm_pvm"); err == nil {
		require.False(t, p.Native, "kvm_pvm emulates ring 0")
		require.Contains(t, p.Stuck, "cmpxchg16b")
		require.Greater(t, p.InstructionNS, float64(emulatedAboveNS))
	} else {
		require.True(t, p.Native)
		require.Empty(t, p.Stuck)
	}
}

func TestProbeLeavesNothingOpen(t *testing.T) {
	sys := kvmtest.Need(t)
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(fds)
	}
	before := count()
	_, err := ProbeRing0(sys)
	require.NoError(t, err)
	require.Equal(t, before, count())
}

func TestProbeString(t *testing.T) {
	require.Equal(t, "runs on the processor, 0.3 ns an instruction", Probe{Native: true, InstructionNS: 0.31}.String())
	require.Equal(t, "is emulated, 1081 ns an instruction", Probe{InstructionNS: 1081.4}.String())
	require.Equal(t, "is emulated, 1081 ns an instruction, and gets stuck at cmpxchg16b: so",
		Probe{InstructionNS: 1081.4, Stuck: "cmpxchg16b: so"}.String())
}
