package container

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/huskvm/husk/internal/cgroup"
	"github.com/huskvm/husk/internal/machine"
)

func ptr[T any](v T) *T { return &v }

// TestCommand has what docker 28 with a daemon 20.10 was seen to do.
func TestCommand(t *testing.T) {
	both := v1.Config{Entrypoint: []string{"echo", "ep"}, Cmd: []string{"c1", "c2"}}
	cmd := v1.Config{Cmd: []string{"echo", "cmd"}}
	for _, tt := range []struct {
		name       string
		image      v1.Config
		entrypoint *string
		args, want []string
	}{
		{"both", both, nil, nil, []string{"echo", "ep", "c1", "c2"}},
		{"arguments for the entrypoint", both, nil, []string{"x"}, []string{"echo", "ep", "x"}},
		{"another entrypoint drops the command", both, ptr("cat"), nil, []string{"cat"}},
		{"another, with arguments", both, ptr("cat"), []string{"x", "y"}, []string{"cat", "x", "y"}},
		{"it is one word", both, ptr("cat x"), nil, []string{"cat x"}},
		{"none, and so no command", both, ptr(""), nil, nil},
		{"none, and another command", both, ptr(""), []string{"x"}, []string{"x"}},
		{"a command", cmd, nil, nil, []string{"echo", "cmd"}},
		{"another command", cmd, nil, []string{"x"}, []string{"x"}},
		{"an empty word", cmd, nil, []string{""}, []string{""}},
		{"a shell's line", v1.Config{Entrypoint: []string{"/bin/sh", "-c", "exec x"}}, nil, nil, []string{"/bin/sh", "-c", "exec x"}},
		{"nothing", v1.Config{}, nil, nil, nil},
		{"nothing, and something asked for", v1.Config{}, nil, []string{"x"}, []string{"x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Command(tt.image, tt.entrypoint, tt.args)
			if tt.want == nil {
				require.ErrorIs(t, err, ErrNoCommand)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

// plan is what a request and an image make on a host.
func plan(t *testing.T, r Request, config v1.Config) (*Plan, error) {
	t.Helper()
	return r.Plan(Image{Name: "img:1", ID: "sha256:1", Config: &v1.ConfigFile{Config: config}}, Host{
		LookupEnv: of("HOST=h"), Dir: "/cur", Volumes: "/data/volumes",
		Free: func(string, netip.AddrPort) bool { return true },
	})
}

var busybox = v1.Config{Cmd: []string{"sh"}}

func TestDefaults(t *testing.T) {
	p, err := plan(t, Request{}, busybox)
	require.NoError(t, err)
	require.Len(t, p.ID, 64)
	require.Equal(t, p.ID[:12], p.Hostname)
	require.Equal(t, machine.Process{Argv: []string{"sh"}, Dir: "/", StopSignal: "SIGTERM", StopTimeout: 10 * time.Second}, p.Process)
	require.EqualValues(t, 1<<30, p.Memory)
	require.Equal(t, 1, p.CPUs)
	require.True(t, p.Limits.Zero())
	require.True(t, p.Bounds.Zero(), "so no control group is made")
	require.Len(t, p.Networks, 1)
	other, err := plan(t, Request{}, busybox)
	require.NoError(t, err)
	require.NotEqual(t, p.ID, other.ID)
}

func TestTheImageAndTheFlags(t *testing.T) {
	image := v1.Config{
		Cmd: []string{"sh"}, Env: []string{"A=1"}, User: "app", WorkingDir: "srv/../w", StopSignal: "SIGRTMIN+3",
		Labels: map[string]string{"a": "img", "b": "img"},
	}
	p, err := plan(t, Request{}, image)
	require.NoError(t, err)
	require.Equal(t, machine.Process{
		Argv: []string{"sh"}, Env: []string{"A=1"}, Dir: "/w", User: "app", StopSignal: "SIGRTMIN+3", StopTimeout: 10 * time.Second,
	}, p.Process)
	require.Equal(t, image.Labels, p.Labels)

	file := filepath.Join(t.TempDir(), "labels")
	require.NoError(t, os.WriteFile(file, []byte("#c\nc=file\nd\n"), 0o600))
	p, err = plan(t, Request{
		Args: []string{"ls", "-l"}, Env: []string{"HOST"}, Workdir: "/a/../b", User: "5:staff", Groups: []string{"7", "staff"}, TTY: true, Interactive: true,
		StopSignal: "int", StopTimeout: ptr(0), Name: "web_1", Hostname: "h", Domainname: "example.org", Labels: []string{"a=flag", "e=x=y"}, LabelFiles: []string{file},
		AutoRemove: true, ReadOnly: true, ShmSize: "1m", Sysctls: []string{"net.core.somaxconn=9"}, DNS: []string{"1.1.1.1", "::1"}, DNSSearch: []string{"example.org"},
		DNSOptions: []string{"ndots:2"}, AddHosts: []string{"db=10.0.0.1", "v6:[::1]", "v6b:fe80::2"}, Append: []string{"quiet", "nosmt"}, Disks: []string{"d.img,ro"}, Timeout: time.Minute,
	}, image)
	require.NoError(t, err)
	require.Equal(t, machine.Process{
		Argv: []string{"ls", "-l"}, Env: []string{"A=1", "HOST=h"}, Dir: "/b", User: "5:staff", Groups: []string{"7", "staff"}, TTY: true, OpenStdin: true,
		StopSignal: "int", StopTimeout: time.Nanosecond,
	}, p.Process)
	require.Equal(t, map[string]string{"a": "flag", "b": "img", "c": "file", "d": "", "e": "x=y"}, p.Labels)
	require.Equal(t, []string{"10.0.0.1 db", "::1 v6", "fe80::2 v6b"}, p.Hosts)
	require.Equal(t, "quiet nosmt", p.Append)
	require.Equal(t, "/cur/d.img", p.Disks[0].File)
	require.EqualValues(t, 1<<20, p.ShmSize)
	require.Equal(t, map[string]string{"net.core.somaxconn": "9"}, p.Sysctls)
	require.Equal(t, []string{"web_1", "h", "example.org"}, []string{p.Name, p.Hostname, p.Domainname})
	require.True(t, p.AutoRemove)
	require.True(t, p.ReadOnly)
	require.Equal(t, time.Minute, p.Timeout)

	p, err = plan(t, Request{StopTimeout: ptr(-1)}, v1.Config{Cmd: []string{"sh"}, StopSignal: "NONSENSE"})
	require.NoError(t, err)
	require.Equal(t, "SIGTERM", p.Process.StopSignal)
	require.Negative(t, p.Process.StopTimeout)

	p, err = plan(t, Request{RWSize: "1g", Networks: []string{"user,hostloopback=on"}, AddHosts: []string{"me:host-gateway"}}, busybox)
	require.NoError(t, err)
	require.EqualValues(t, 1<<30, p.RWSize)
	require.Equal(t, []string{"10.0.2.2 me"}, p.Hosts)
}

func TestRefusals(t *testing.T) {
	for text, r := range map[string]Request{
		`--workdir "rel"`:               {Workdir: "rel"},
		"--name: machine name":          {Name: "-x"},
		"--stop-signal: signal \"FOO\"": {StopSignal: "FOO"},
		"--hostname":                    {Hostname: string(make([]byte, 65))},
		"a blank, a #":                  {Hostname: "a b"},
		"--domainname":                  {Domainname: "a/b"},
		"NUL in it":                     {Args: []string{"a\x00"}},
		`--label "=x"`:                  {Labels: []string{"=x"}},
		"--label-file":                  {LabelFiles: []string{"/nonexistent"}},
		`--dns "x"`:                     {DNS: []string{"x"}},
		`--dns "1.1.1.1:53"`:            {DNS: []string{"1.1.1.1:53"}},
		`--dns-search "a b"`:            {DNSSearch: []string{"a b"}},
		`--dns-search ""`:               {DNSSearch: []string{""}},
		`--dns-search "-x"`:             {DNSSearch: []string{"-x"}},
		`--dns-option ""`:               {DNSOptions: []string{""}},
		`--add-host "a"`:                {AddHosts: []string{"a"}},
		`"a:": "" is not an IP`:         {AddHosts: []string{"a:"}},
		`"1.2.3.4:5" is not an IP`:      {AddHosts: []string{"a:1.2.3.4:5"}},
		`"fe80::1%eth0" is not an IP`:   {AddHosts: []string{"a:fe80::1%eth0"}},
		"user,hostloopback=on":          {AddHosts: []string{"a:host-gateway"}},
		`--sysctl "a.b"`:                {Sysctls: []string{"a.b"}},
		`--sysctl "../x=1"`:             {Sysctls: []string{"../x=1"}},
		`--shm-size "x"`:                {ShmSize: "x"},
		`--rw-size "x"`:                 {RWSize: "x"},
		"with --read-only nothing":      {RWSize: "1g", ReadOnly: true},
		"--disk":                        {Disks: []string{"x,nonsense"}},
		"--timeout -1s":                 {Timeout: -time.Second},
		`--memory "x"`:                  {Memory: "x"},
		`--memory "-1"`:                 {Memory: "-1"},
		"a number alone is bytes":       {Memory: "512"},
		"GiB at most":                   {Memory: "9000t"},
		"--cpus: \"-1\"":                {CPUs: "-1"},
		"--cpus: \"100\"":               {CPUs: "100"},
		"--cpus: \"nan\"":               {CPUs: "nan"},
		"--cpus: \"0.001\"":             {CPUs: "0.001"},
		"--cpu-shares 1:":               {CPUShares: 1},
		"--cpu-weight 10001":            {CPUWeight: 10001},
		"leave one of them out":         {CPUShares: 2, CPUWeight: 1},
		"only with --cpu-quota":         {CPUPeriod: 1000},
		"both are microseconds":         {CPUQuota: 10},
		"and a machine has 64":          {CPUQuota: 1 << 40},
		"say the same":                  {CPUQuota: 50000, CPUs: "1"},
		`--device-read-bps "vda:1m"`:    {ReadBPS: []string{"vda:1m"}},
		`--device-write-bps "/dev/x"`:   {WriteBPS: []string{"/dev/x"}},
		"not a number of requests":      {ReadIOPS: []string{"/dev/x:1k"}},
		"a rate of 0":                   {WriteIOPS: []string{"/dev/x:0"}},
		"not a block device":            {ReadBPS: []string{"/dev/null:1m"}},
		"duplicate mount point":         {Volumes: []string{"/tmp:/x", "/etc:/x/"}},
		"/y is given to two":            {Volumes: []string{"/tmp:/y"}, Tmpfs: []string{"/y"}},
		"source path does not exist":    {Mounts: []string{"type=bind,src=/nonexistent,dst=/x"}},
		"--env \"=x\"":                  {Env: []string{"=x"}},
	} {
		_, err := plan(t, r, busybox)
		require.ErrorContains(t, err, text)
	}
	_, err := plan(t, Request{}, v1.Config{})
	require.ErrorIs(t, err, ErrNoCommand)
}

func TestMounts(t *testing.T) {
	dir := t.TempDir()
	p, err := plan(t, Request{
		Volumes: []string{dir + ":/v/deep/er:ro", dir + "/new:/v", "data:/d", "./rel:/r", "/anon"},
		Mounts:  []string{"type=bind,src=" + dir + ",dst=/m", "type=tmpfs,dst=/t,tmpfs-size=1m"},
		Tmpfs:   []string{"/run"},
	}, v1.Config{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"/imgvol": {}, "/d": {}, "nonsense": {}, "/": {}}})
	require.NoError(t, err)
	require.Equal(t, []machine.Volume{
		{Host: dir + "/new", Guest: "/v"},
		{Host: "/data/volumes/data", Guest: "/d"},
		{Host: "/cur/rel", Guest: "/r"},
		{Host: dir, Guest: "/m"},
		{Host: dir, Guest: "/v/deep/er", ReadOnly: true},
	}, p.Volumes, "what is below others is mounted after them")
	require.Equal(t, []machine.Tmpfs{
		{Guest: "/t", Options: "noexec,nosuid,nodev,size=1048576"}, {Guest: "/run", Options: "noexec,nosuid,nodev"},
	}, p.Tmpfs, "volumes without a name are the root's")
	require.Equal(t, []string{dir + "/new", "/data/volumes/data", "/cur/rel"}, p.Folders)

	p.Folders = p.Folders[:1]
	require.NoError(t, p.MakeFolders())
	require.DirExists(t, dir+"/new")
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o600))
	p.Folders = []string{dir + "/file/x"}
	require.ErrorContains(t, p.MakeFolders(), "make the folder of a volume")

	p, err = plan(t, Request{ReadOnly: true, Volumes: []string{"/anon"}}, v1.Config{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"/imgvol": {}}})
	require.NoError(t, err)
	require.Equal(t, []machine.Tmpfs{{Guest: "/anon", Options: "nodev"}, {Guest: "/imgvol", Options: "nodev"}}, p.Tmpfs,
		"they can be written to where the root cannot")
}

func TestLimits(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name   string
		r      Request
		cpus   int
		memory uint64
		limits cgroup.Limits
		bounds cgroup.Limits
	}{
		{"whole processors", Request{CPUs: "2"}, 2, DefaultMemory, cgroup.Limits{}, cgroup.Limits{CPUs: 2, Tasks: tasks}},
		{"a part of them", Request{CPUs: "1.5"}, 2, DefaultMemory, cgroup.Limits{CPUs: 1.5}, cgroup.Limits{Tasks: tasks}},
		{"no limit", Request{CPUs: "0", Memory: "0"}, 1, DefaultMemory, cgroup.Limits{}, cgroup.Limits{}},
		{"a quota", Request{CPUQuota: 25000, CPUPeriod: 50000}, 1, DefaultMemory, cgroup.Limits{CPUs: 0.5}, cgroup.Limits{Tasks: tasks}},
		{"a quota in the usual period", Request{CPUQuota: 200000}, 2, DefaultMemory, cgroup.Limits{}, cgroup.Limits{CPUs: 2, Tasks: tasks}},
		{"shares", Request{CPUShares: 1024}, 1, DefaultMemory, cgroup.Limits{Weight: 39}, cgroup.Limits{Tasks: tasks}},
		{"weight", Request{CPUWeight: 10000}, 1, DefaultMemory, cgroup.Limits{Weight: 10000}, cgroup.Limits{Tasks: tasks}},
		{"memory", Request{Memory: "256m"}, 1, 256 * mib, cgroup.Limits{}, cgroup.Limits{Memory: 512 * mib, Tasks: tasks}},
		{"a small machine", Request{Memory: "80m"}, 1, 80 * mib, cgroup.Limits{}, cgroup.Limits{Memory: 336 * mib, Tasks: tasks}},
		{"the smallest", Request{Memory: "67108864"}, 1, 64 * mib, cgroup.Limits{}, cgroup.Limits{Memory: 320 * mib, Tasks: tasks}},
		{"memory that is no multiple", Request{Memory: "100.5m"}, 1, 102 * mib, cgroup.Limits{}, cgroup.Limits{Memory: 358 * mib, Tasks: tasks}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := plan(t, tt.r, busybox)
			require.NoError(t, err)
			require.Equal(t, tt.cpus, p.CPUs)
			require.Equal(t, tt.memory, p.Memory)
			require.Equal(t, tt.limits, p.Limits)
			require.Equal(t, tt.bounds, p.Bounds)
		})
	}
}

// TestParseSize has what docker 28 was seen to do, but for exponents.
func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "512": 512, "512b": 512, "512m": 512 << 20, "1g": 1 << 30, "1.5g": 3 << 29, ".5g": 1 << 29, "64M": 64 << 20, "64mb": 64 << 20, "64MiB": 64 << 20,
		"64 m": 64 << 20, "100.5m": 105381888, "10000000k": 10240000000, "1t": 1 << 40, "1p": 1 << 50,
	} {
		got, err := ParseSize(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "-1", "x", "64m5", "1.1.1m", "64  m", "1e9", "inf", "nan", "0x10", "1_0", "m", ".", "64bb", "64kk", "64kib2", "9999999p"} {
		_, err := ParseSize(text)
		require.Error(t, err, text)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		if n, err := ParseSize(text); err == nil {
			require.LessOrEqual(t, n, uint64(1<<62))
		}
	})
}

func TestForeignFlags(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range ForeignFlags() {
		require.False(t, seen[f.Name], f.Name)
		seen[f.Name] = true
		for _, value := range f.Accept {
			require.NoError(t, f.Check(value), f.Name)
		}
		if f.All {
			require.NoError(t, f.Check("x"), f.Name)
			continue
		}
		require.NotEmpty(t, f.Reason, f.Name)
		require.EqualError(t, f.Check("something else"), f.Reason)
	}
}
