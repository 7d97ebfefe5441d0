package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/machine/control"
	"github.com/huskvm/husk/internal/machine/jsonlog"
	"github.com/huskvm/husk/vmm"
)

// machinesHost is a host with machines, none of which runs.
func machinesHost(t *testing.T) (*fakeHost, *machine.Machines) {
	t.Helper()
	h, dir := newFakeHost(t), t.TempDir()
	h.getenv = func(name string) string {
		return map[string]string{"XDG_RUNTIME_DIR": dir + "/run", "XDG_DATA_HOME": dir + "/data"}[name]
	}
	ms, err := openMachines(h.env)
	require.NoError(t, err)
	return h, ms
}

func addMachine(t *testing.T, ms *machine.Machines, s machine.Spec, state machine.State) *machine.Machine {
	t.Helper()
	m, err := ms.Create(t.Context(), s)
	require.NoError(t, err)
	require.NoError(t, m.Close())
	if state.Status != machine.Created {
		require.NoError(t, m.WriteState(state))
	}
	return m
}

func TestPs(t *testing.T) {
	h, ms := machinesHost(t)
	now := time.Now()
	addMachine(t, ms, machine.Spec{
		ID: strings.Repeat("ab", 32), Name: "web", Created: now.Add(-3 * time.Hour), Image: machine.Image{Name: "nginx:1.27", ID: "sha256:abc"},
		Process: machine.Process{Argv: []string{"/docker-entrypoint.sh", "nginx"}}, Labels: map[string]string{"a": "1", "b": "2"},
	}, machine.State{Status: machine.Exited, ExitCode: 7, Finished: now.Add(-5 * time.Minute)})
	addMachine(t, ms, machine.Spec{ID: strings.Repeat("c", 64), Name: "crashed", Created: now.Add(-time.Hour), Image: machine.Image{Name: "debian"}},
		machine.State{Status: machine.Running, PID: 1 << 30, Started: now})
	addMachine(t, ms, machine.Spec{ID: strings.Repeat("d", 64), Name: "fresh", Created: now.Add(time.Hour), Image: machine.Image{Name: "debian"}}, machine.State{Status: machine.Created})

	ps := func(args ...string) string {
		h.out = buffer{}
		require.Zero(t, h.husk(append([]string{"ps"}, args...)...), h.err.String())
		return h.out.String()
	}
	require.Equal(t, "MACHINE ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n", ps(), "none runs")
	require.Equal(t, `MACHINE ID     IMAGE        COMMAND                  CREATED                  STATUS                     PORTS     NAMES
dddddddddddd   debian       ""                       Less than a second ago   Created                              fresh
cccccccccccc   debian       ""                       About an hour ago        Dead (137)                           crashed
abababababab   nginx:1.27   "/docker-entrypoint.…"   3 hours ago              Exited (7) 5 minutes ago             web
`, ps("-a"))
	require.Equal(t, "dddddddddddd\n", ps("-lq"))
	require.Equal(t, "dddddddddddd\ncccccccccccc\n", ps("-n", "2", "-q"))
	require.Equal(t, strings.Repeat("ab", 32)+"\n", ps("-aq", "--no-trunc", "--filter", "ancestor=nginx"))
	for filter, names := range map[string]string{
		"name=e": "fresh crashed web", "name=web": "web", "id=cc": "crashed", "status=dead": "crashed", "status=exited": "web",
		"label=a": "web", "label=a=1": "web", "label=a=2": "", "ancestor=debian:latest": "fresh crashed", "ancestor=nginx:1.27": "web", "ancestor=ngin": "",
	} {
		require.Equal(t, names, strings.Join(strings.Fields(ps("-a", "-f", filter, "--format", "{{.Names}}")), " "), filter)
	}
	require.Equal(t, "web a=1,b=2 2 exited\n", ps("-a", "-f", "name=web", "--format", `{{.Names}} {{.Labels}} {{.Label "b"}} {{.State}}`))
	require.Equal(t, "NAMES     STATE\nweb       exited\n", ps("-a", "-f", "name=web", "--format", `table {{.Names}}\t{{.State}}`))
	require.Equal(t, "NAMES     b         for whom\nweb       2         \n", ps("-a", "-f", "name=web", "--format", `table {{.Names}}\t{{.Label "b"}}\t{{.Label "org.x.for-whom"}}`))
	var row psRow
	require.NoError(t, json.Unmarshal([]byte(ps("-a", "-f", "name=web", "--format", "json")), &row))
	require.Equal(t, "web", row.Names)

	for args, want := range map[string]string{
		"ps x": "unexpected argument", "ps -f name": "--filter", "ps -f x=y": "--filter", "ps -a --format {{.": "--format", "ps -a --format {{.No}}": "--format",
	} {
		h.err = buffer{}
		require.NotZero(t, h.husk(strings.Fields(args)...))
		require.Contains(t, h.err.String(), want, args)
	}
}

func TestPorts(t *testing.T) {
	p := netdev.Publish{Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:8080"), Guest: 80}
	row := (&psFlags{}).row(machine.Spec{ID: strings.Repeat("a", 64)}, machine.State{Status: machine.Paused, Ports: []netdev.Publish{p, p}}, time.Time{}.Add(time.Minute))
	require.Equal(t, "127.0.0.1:8080->80/tcp, 127.0.0.1:8080->80/tcp", row.Ports)
	require.Equal(t, "Up About a minute (Paused)", row.Status)
}

func TestHumanDuration(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		0: "Less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds", 61 * time.Second: "About a minute", 2 * time.Minute: "2 minutes",
		time.Hour: "About an hour", 47 * time.Hour: "47 hours", 3 * day: "3 days", 20 * day: "2 weeks", 90 * day: "3 months", 800 * day: "2 years",
	} {
		require.Equal(t, want, humanDuration(d))
	}
}

func TestInspect(t *testing.T) {
	h, ms := machinesHost(t)
	m := addMachine(t, ms, machine.Spec{Name: "web", RWSize: 1, Process: machine.Process{Env: []string{"A=<b>"}}},
		machine.State{Status: machine.Exited, ExitCode: 3, Error: "why", IP: "10.0.2.15", Ports: []netdev.Publish{{Proto: "udp", Host: netip.MustParseAddrPort("0.0.0.0:53"), Guest: 5353}}})
	require.Equal(t, 1, h.husk("inspect", "web", "none"))
	require.Contains(t, h.err.String(), "no such machine: none")
	var list []map[string]any
	require.NoError(t, json.Unmarshal([]byte(h.out.String()), &list))
	require.Len(t, list, 1)
	require.Equal(t, m.ID(), list[0]["Id"])
	require.Contains(t, h.out.String(), "A=<b>")

	h.out = buffer{}
	require.Zero(t, h.husk("inspect", "-f", `{{.State.Status}} {{.State.ExitCode}} {{.State.Error}} {{(index (index .NetworkSettings.Ports "5353/udp") 0).HostPort}}`, "web"))
	require.Equal(t, "exited 3 why 53\n", h.out.String())
}

func TestLogs(t *testing.T) {
	h, ms := machinesHost(t)
	m := addMachine(t, ms, machine.Spec{Name: "web"}, machine.State{Status: machine.Exited})
	w, err := jsonlog.Create(m.LogFile())
	require.NoError(t, err)
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	w.Write(jsonlog.Stdout, []byte("one\nha"), at)
	w.Write(jsonlog.Stderr, []byte("bad\n"), at)
	w.Write(jsonlog.Stdout, []byte("lf\n"), at.Add(time.Hour))
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(m.ConsoleFile(), []byte("kernel\n"), 0o600))

	logs := func(args ...string) string {
		h.out = buffer{}
		require.Zero(t, h.husk(append([]string{"logs"}, append(args, "web")...)...), h.err.String())
		return h.out.String()
	}
	require.Equal(t, "one\nhalf\n", logs("-f"))
	require.Equal(t, "bad\n", h.err.String())
	require.Equal(t, "2026-11-24T12:00:00Z one\n2026-11-24T12:00:00Z half\n", logs("-t"))
	require.Equal(t, "lf\n", logs("--since", "2026-11-24T12:30:00Z"))
	require.Equal(t, "one\nha", logs("--until", "1795522200"))
	require.Equal(t, "lf\n", logs("-n", "1"))
	require.Equal(t, "kernel\n", logs("--console"))
	for _, bad := range []string{"--since=soon", "--tail=few"} {
		require.NotZero(t, h.husk("logs", bad, "web"))
	}
}

// TestWhatNeedsAMachineThatRuns says so, and which, and goes on with the next.
func TestWhatNeedsAMachineThatRuns(t *testing.T) {
	h, ms := machinesHost(t)
	addMachine(t, ms, machine.Spec{Name: "web"}, machine.State{Status: machine.Exited, ExitCode: 4})
	for args, want := range map[string]string{
		"kill web none": "no such machine: none", "kill web": "machine web is not running (exited)", "kill -s HUP web": "not running", "pause web": "not running",
		"unpause web": "not running", "exec web ls": "not running", "attach web": "not running", "cp web:/x .": "only there while it runs",
		"cp . web:/x": "only there while it runs", "cp a b": "one of source and destination", "cp web:/x web:/y": "one of source and destination",
		"cp web: x": "a path is empty", "cp x": "name a source", "exec web": "no command", "exec": "name a machine", "stop": "name a machine",
		"wait": "name a machine", "rm": "name a machine", "inspect": "name a machine", "logs": "name a machine", "stop -s FOO web": "no such signal", "stats none": "no such machine",
		"attach --detach-keys ctrl-1 web": "detach keys",
	} {
		h.err = buffer{}
		require.NotZero(t, h.husk(strings.Fields(args)...), args)
		require.Contains(t, h.err.String(), want, args)
	}
	h.out = buffer{}
	require.Zero(t, h.husk("stop", "web"), "it has ended, as was asked")
	require.Zero(t, h.husk("wait", "web"))
	require.Zero(t, h.husk("rm", "web"))
	require.Equal(t, "web\n4\nweb\n", h.out.String())
	require.Equal(t, 1, h.husk("rm", "web"))
}

func TestSplitMachine(t *testing.T) {
	for text, want := range map[string][2]string{
		"web:/a:b": {"web", "/a:b"}, "web:a": {"web", "a"}, "./a:b": {"", "./a:b"}, "/a:b": {"", "/a:b"}, ":a": {"", ":a"}, "a": {"", "a"}, "-": {"", "-"},
	} {
		name, path := splitMachine(text)
		require.Equal(t, want, [2]string{name, path}, text)
	}
}

func TestStatsRow(t *testing.T) {
	at := time.Now()
	u := control.Usage{
		At: at.Add(time.Second), CPU: 3 * time.Second, Memory: vmm.MemoryStats{GuestRAM: 4 << 30, GuestResident: 1 << 30, VMMResident: 20 << 20},
		IO: vmm.IOStats{ReadBytes: 1500, WriteBytes: 2, ReceivedBytes: 3_000_000, SentBytes: 999},
	}
	require.Equal(t, statsRow{
		ID: "id", Name: "n", CPUPerc: "150.00%", MemUsage: "1GiB / 4GiB", MemPerc: "25.00%", VMM: "20MiB", NetIO: "3MB / 999B", BlockIO: "1.5kB / 2B",
	}, rowOf("id", "n", control.Usage{At: at, CPU: 1500 * time.Millisecond}, u))
	require.Equal(t, "--", rowOf("id", "n", control.Usage{}, control.Usage{}).CPUPerc)
}
