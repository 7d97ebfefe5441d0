package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/internal/doctor"
	"github.com/huskvm/husk/internal/term"
	"github.com/huskvm/husk/vmm"
)

var update = flag.Bool("update", false, "write docs/cli.md instead of comparing with it")

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
	}
	// A console on a terminal starts this binary as its guard.
	if len(os.Args) > 1 && os.Args[1] == guardName {
		if err := term.Guard(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A fakeHost is an env with fakes behind it.
type fakeHost struct {
	*env
	out, err            buffer
	made                []vmm.Config // what machines were made from
	run                 func(ctx context.Context, m *fakeMachine) (*vmm.Result, error)
	labArgs, labOutputs []string
	closed              int
}

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	stdin, err := os.Open(os.DevNull)
	require.NoError(t, err)
	t.Cleanup(func() { _ = stdin.Close() })
	h := &fakeHost{}
	h.env = &env{
		stdin: stdin, stdout: &h.out, stderr: &h.err,
		getenv: func(string) string { return "" },
		newMachine: func(cfg vmm.Config) (bootMachine, error) {
			h.made = append(h.made, cfg)
			return &fakeMachine{host: h, cfg: cfg, pressed: make(chan struct{}, 8), breaks: make(chan struct{}, 8)}, nil
		},
		canBoot: func() error { return nil },
		examine: func() *doctor.Report { return &doctor.Report{Verdict: doctor.InLab} },
		lab: func(_ context.Context, args []string, outputs ...string) (int, error) {
			h.labArgs, h.labOutputs = args, outputs
			return 42, nil
		},
	}
	h.run = ends(vmm.Result{Outcome: vmm.PowerOff})
	return h
}

// husk runs a command line and returns the exit code.
func (h *fakeHost) husk(args ...string) int { return dispatch(context.Background(), h.env, args) }

// huskUntimed is husk where time passes only while everybody waits for it.
func (h *fakeHost) huskUntimed(t *testing.T, args ...string) (code int) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { code = h.husk(args...) })
	return code
}

// ends is a run that ends at once.
func ends(r vmm.Result) func(context.Context, *fakeMachine) (*vmm.Result, error) {
	return func(context.Context, *fakeMachine) (*vmm.Result, error) { return &r, nil }
}

// untilEnded is a run that the guest never ends.
func untilEnded(ctx context.Context, _ *fakeMachine) (*vmm.Result, error) {
	<-ctx.Done()
	return &vmm.Result{Outcome: vmm.Cancelled}, nil
}

// untilPressed is a guest that powers off when its button is pressed.
func untilPressed(ctx context.Context, m *fakeMachine) (*vmm.Result, error) {
	select {
	case <-ctx.Done():
		return &vmm.Result{Outcome: vmm.Cancelled}, nil
	case <-m.pressed:
		return &vmm.Result{Outcome: vmm.PowerOff}, nil
	}
}

type fakeMachine struct {
	host    *fakeHost
	cfg     vmm.Config
	pressed chan struct{}
	breaks  chan struct{}
}

func (m *fakeMachine) Run(ctx context.Context) (*vmm.Result, error) { return m.host.run(ctx, m) }
func (m *fakeMachine) Break(context.Context) error                  { m.breaks <- struct{}{}; return nil }
func (m *fakeMachine) Resize(int, int)                              {}
func (m *fakeMachine) Published() []netdev.Publish                  { return nil }
func (m *fakeMachine) PowerButton()                                 { m.pressed <- struct{}{} }
func (m *fakeMachine) Stats() vmm.Stats                             { return vmm.Stats{Exits: map[string]uint64{"io": 7}} }
func (m *fakeMachine) Close() error                                 { m.host.closed++; return nil }

// A buffer is a bytes.Buffer that can be written to and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// file writes a file into a folder of its own.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestDispatch(t *testing.T) {
	tests := []struct {
		name     string
		args     []string
		code     int
		out, err string // parts of what is printed; nothing else goes to the other
	}{
		{"nothing", nil, exitFailed, "", "Usage: husk VERB"},
		{"help", []string{"help"}, exitOK, "Usage: husk VERB", ""},
		{"--help", []string{"--help"}, exitOK, "Usage: husk VERB", ""},
		{"-h", []string{"-h"}, exitOK, "Usage: husk VERB", ""},
		{"help of a verb", []string{"help", "boot"}, exitOK, "Usage: husk boot", ""},
		{"--help of a verb", []string{"boot", "--help"}, exitOK, "Usage: husk boot", ""},
		{"help wins over other flags", []string{"boot", "-m", "nonsense", "-h"}, exitOK, "Usage: husk boot", ""},
		{"help of no verb", []string{"help", "bot"}, exitFailed, "", `husk: no verb "bot" (did you mean "boot"?)`},
		{"version", []string{"version"}, exitOK, "husk ", ""},
		{"--version", []string{"--version"}, exitOK, "husk ", ""},
		{"a slip", []string{"doctro"}, exitFailed, "", `husk: no verb "doctro" (did you mean "doctor"?); see husk help`},
		{"a beginning", []string{"doc"}, exitFailed, "", `(did you mean "doctor"?)`},
		{"nothing like it", []string{"xyzzy"}, exitFailed, "", `husk: no verb "xyzzy"; see husk help`},
		{"unknown flag", []string{"boot", "--nonsense"}, exitFailed, "", "husk: unknown flag: --nonsense\nsee husk boot --help\n"},
		{"unexpected argument", []string{"boot", "bzImage"}, exitFailed, "", "husk: unexpected argument \"bzImage\"\nsee husk boot --help\n"},
		{"doctor's verdict", []string{"doctor"}, 1, "in the lab", ""},
		{"doctor's verdict as JSON", []string{"doctor", "--json"}, 1, `"verdict": "lab"`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHost(t)
			require.Equal(t, tt.code, h.husk(tt.args...))
			require.Contains(t, h.out.String(), tt.out)
			require.Contains(t, h.err.String(), tt.err)
			if tt.out == "" {
				require.Empty(t, h.out.String())
			}
			if tt.err == "" {
				require.Empty(t, h.err.String())
			}
		})
	}
}

func TestErrorsAreReported(t *testing.T) {
	h := newFakeHost(t)
	h.newMachine = func(vmm.Config) (bootMachine, error) { return nil, errors.New("no luck; try again") }
	require.Equal(t, exitFailed, h.husk("boot", "-k", file(t, "bzImage", "kernel")))
	require.Equal(t, "husk: no luck; try again\n", h.err.String())
}

func TestLostOutputIsAFailure(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { _ = full.Close() }()
	for _, args := range [][]string{{"help"}, {"help", "boot"}, {"boot", "--help"}, {"version"}, {"doctor"}} {
		h := newFakeHost(t)
		h.stdout = full
		require.Equal(t, exitFailed, h.husk(args...), args)
		require.Contains(t, h.err.String(), "no space left on device")
	}
}

func TestVersionIsTheBuilds(t *testing.T) {
	require.Regexp(t, "^husk .+, go.* linux/amd64$", versionLine(), "what the toolchain says")
	makefile, err := os.ReadFile("../../Makefile")
	require.NoError(t, err)
	require.Contains(t, string(makefile), "-X main.version=")
	version = "v1.2.3-dirty"
	t.Cleanup(func() { version = "" })
	require.Regexp(t, `^husk v1\.2\.3-dirty, go\S+ linux/amd64$`, versionLine())
}

func TestReferenceIsCurrent(t *testing.T) {
	const path = "../../docs/cli.md"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(reference()), 0o644))
	}
	current, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(current), reference(), "go run ./cmd/husk docs >docs/cli.md makes it so")
}

func TestVerbsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range verbs() {
		require.False(t, seen[v.name], "%s is there twice", v.name)
		seen[v.name] = true
		require.NotEmpty(t, v.short)
		require.NotRegexp(t, `[.]$`, v.short)
		fs, run := v.flags()
		require.NotNil(t, fs)
		require.NotNil(t, run)
		if !v.hidden && fs.HasFlags() {
			require.NotEmpty(t, v.examples, "husk help %s shows no example", v.name)
		}
	}
}
