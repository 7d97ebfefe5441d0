package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/tests/bench/load"
)

func TestFollow(t *testing.T) {
	console := "boot\r\n\x1b[0m@bench+a\r\n[   1.0] the kernel speaks\r\n@bench-\r\n@bench={\"name\":\"a\",\"ops\":4,\"bytes\":4096,\"seconds\":2}\r\n" +
		"@bench+b\r\n@bench-\r\n@bench={\"name\":\"b\",\"ops\":1,\"bytes\":1,\"seconds\":1}\r\n@bench.\r\nmore"
	looks := []cost{
		{map[string]uint64{"exits": 10}, 1},
		{map[string]uint64{"exits": 30}, 1.5},
		{map[string]uint64{"exits": 100}, 2},
		{map[string]uint64{"exits": 101}, 2},
	}
	var s ioSample
	n := 0
	require.NoError(t, s.follow(strings.NewReader(console), func() cost { n++; return looks[n-1] }))
	require.Equal(t, []ioLoad{
		{load.Result{Name: "a", Ops: 4, Bytes: 4096, Seconds: 2}, map[string]uint64{"exits": 20}, 0.5},
		{load.Result{Name: "b", Ops: 1, Bytes: 1, Seconds: 1}, map[string]uint64{"exits": 1}, 0},
	}, s.Loads)

	for console, want := range map[string]string{
		"panic: no root\n":    "no root",
		"@bench!no disk\r\n":  "the guest says: no disk",
		"@bench=not JSON\r\n": "what the guest measured",
		"@bench+a\r\n":        "it ended",
	} {
		var s ioSample
		require.ErrorContains(t, s.follow(strings.NewReader(console), func() cost { return cost{} }), want)
	}
}

// TestAMonitorThatHangs is started again in the lab, and only if nothing was
// measured.
func TestAMonitorThatHangs(t *testing.T) {
	silent := monitor{Name: "silent", Argv: []string{"/bin/sleep", "100"}}
	o := &options{limit: time.Millisecond, inLab: true}
	require.True(t, o.takeIO(silent, 1, false).Again)
	o.inLab = false
	s := o.takeIO(silent, 1, false)
	require.False(t, s.Again)
	require.Contains(t, s.Error, "timeout")
	o = &options{limit: time.Minute, inLab: true}
	s = o.takeIO(monitor{Name: "none", Argv: []string{"/bin/echo", "no kernel"}}, 1, false)
	require.False(t, s.Again)
	require.Contains(t, s.Error, "no kernel")
}

func TestCPUTime(t *testing.T) {
	for start := time.Now(); cpuTime(os.Getpid()) == 0; {
		require.Less(t, time.Since(start), time.Minute, "this process has run")
	}
	require.Zero(t, cpuTime(0))
}

func TestIOMonitors(t *testing.T) {
	programs := map[string]string{"husk": "/bin/true", "lkvm": "/bin/true", "qemu": "/bin/true"}
	all := ioMonitors(programs, ioPayload{Kernel: "/k", Initrd: "/i", Image: "/d", Net: true, Vhost: true})
	require.Len(t, all, 4)
	for _, m := range all {
		args := strings.Join(m.Argv, " ")
		require.Contains(t, args, "/d")
		require.Contains(t, args, tapName)
	}
	require.Len(t, ioMonitors(programs, ioPayload{Net: true}), 3, "without vhost-net in the host")
	for _, m := range ioMonitors(programs, ioPayload{Image: "/d"}) {
		require.NotContains(t, strings.Join(m.Argv, " "), tapName)
	}
	require.Empty(t, ioMonitors(nil, ioPayload{}))
}

func TestIOReport(t *testing.T) {
	at := func(name string, ops uint64, exits uint64) ioLoad {
		return ioLoad{Result: load.Result{Name: name, Ops: ops, Bytes: ops * 4096, Seconds: 2}, KVM: map[string]uint64{"exits": exits}}
	}
	r := &result{
		IOMonitors: []monitor{{Name: nameHusk}, {Name: "a"}, {Name: "b"}, {Name: "c"}},
		IOSamples: []ioSample{
			{Monitor: nameHusk, Loads: []ioLoad{at(load.ReadAlone, 200, 400), at(load.TCPTrips, 10, 50)}},
			{Monitor: nameHusk, Loads: []ioLoad{at(load.ReadAlone, 400, 800)}},
			{Monitor: "a", Loads: []ioLoad{at(load.ReadAlone, 100, 300)}},
			{Monitor: "b", Loads: []ioLoad{at(load.ReadAlone, 200, 400)}},
			{Monitor: "c", Error: "it ended"},
		},
	}
	var out bytes.Buffer
	require.NoError(t, r.write(&out))
	require.Regexp(t, `disk read 4 KiB, depth 1: IOPS +150 +50 +100 +- +1\.50\n`, out.String(), "beside the fastest")
	require.Regexp(t, `disk read 4 KiB, depth 1: exits per I/O +2\.00 +3\.00 +2\.00 +- +1\.00\n`, out.String(), "beside the fewest")
	require.Regexp(t, `TCP round trips: per second +5 +- +- +- +-\n`, out.String())
	require.NotContains(t, out.String(), load.ReadSeq, "nobody has a figure for it")
	require.Contains(t, out.String(), "c, round 0: it ended")
	require.NotContains(t, out.String(), "exits to init", "no boots were measured")
}

func TestImageHasNoHoles(t *testing.T) {
	name, err := makeImage()
	require.NoError(t, err)
	defer os.Remove(name)
	st, err := os.Stat(name)
	require.NoError(t, err)
	require.EqualValues(t, imageMiB<<20, st.Size())
}

func TestStaticPrograms(t *testing.T) {
	require.ErrorContains(t, checkStatic("/bin/sh"), "CGO_ENABLED=0")
	require.Error(t, checkStatic(filepath.Join(t.TempDir(), "none")))
}

func TestWhatFlag(t *testing.T) {
	kernel := filepath.Join(t.TempDir(), "vmlinuz")
	require.NoError(t, os.WriteFile(kernel, nil, 0o600))
	base := []string{"--kernel", kernel, "--husk", "/bin/true"}
	o, err := parse(base)
	require.NoError(t, err)
	require.True(t, o.measures(whatBoot) && o.measures(whatDisk) && o.measures(whatNet))
	o, err = parse(append(base, "--what", "net"))
	require.NoError(t, err)
	require.False(t, o.measures(whatBoot) || o.measures(whatDisk))
	for _, wrong := range [][]string{{"--what", "tape"}, {"--what", ""}, {"--load-time", "0s"}} {
		_, err := parse(append(base, wrong...))
		require.Error(t, err, "%q", wrong)
	}
}
