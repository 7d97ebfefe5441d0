package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/huskvm/husk/internal/kstack"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/vmm"
)

// role makes the test's own program a machine: what its guest does.
const role = "HUSK_MACHINE_TEST"

func TestMain(m *testing.M) {
	if does := os.Getenv(role); does != "" {
		serve(does)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// serve is a machine with a guest that does what it is told.
func serve(does string) {
	boots := 0
	Serve(context.Background(), os.NewFile(FD, "test"), 2, func(serial *vmm.Serial) (VM, error) {
		if does == "unmakable" {
			return nil, errors.New("kernel /nowhere: no such file")
		}
		boots++
		return &fakeVM{does: does, boot: boots, serial: serial, button: make(chan struct{}, 1)}, nil
	}, func() (Kernel, error) { return somewhere{}, nil })
}

type fakeVM struct {
	does   string
	boot   int
	serial *vmm.Serial
	button chan struct{}
}

func (v *fakeVM) Run(ctx context.Context) (*vmm.Result, error) {
	fmt.Fprintf(v.serial.Out, "boot %d\n", v.boot)
	switch v.does {
	case "exit":
		return &vmm.Result{Outcome: vmm.DebugExit, Code: 7}, nil
	case "reboot":
		return &vmm.Result{Outcome: vmm.Reboot}, nil
	case "crash":
		return &vmm.Result{Outcome: vmm.TripleFault, Detail: "vCPU 0", Dump: &vmm.Dump{}}, nil
	case "fail":
		return nil, errors.New("out of something")
	case "panic":
		panic("a bug in husk")
	case "echo":
		b := make([]byte, 100)
		n, err := v.serial.In.Read(b)
		fmt.Fprintf(v.serial.Out, "%s %v", b[:n], err)
	case "talk":
		for ctx.Err() == nil {
			fmt.Fprintln(v.serial.Out, "still here")
		}
	case "much":
		for i := range 20000 {
			fmt.Fprintf(v.serial.Out, "line %d\n", i)
		}
		return &vmm.Result{Outcome: vmm.PowerOff}, nil
	}
	select {
	case <-v.button:
		return &vmm.Result{Outcome: vmm.PowerOff}, nil
	case <-ctx.Done():
		fmt.Fprint(v.serial.Out, "cancelled")
		return &vmm.Result{Outcome: vmm.Cancelled}, nil
	}
}

func (v *fakeVM) PowerButton() { v.button <- struct{}{} }
func (v *fakeVM) Close() error { return nil }

func (v *fakeVM) Dumps(context.Context) ([]vmm.Dump, error) {
	d := vmm.Dump{CPU: 1}
	d.Regs.RIP = 0x1234
	return []vmm.Dump{d}, errors.New("only one")
}

// Pause never comes to an end where a device is stuck.
func (v *fakeVM) Pause() error {
	if v.does == "stuck" {
		select {}
	}
	return nil
}

func (v *fakeVM) Resume() error { return nil }

func (v *fakeVM) ReadVirtual(*vmm.Dump, uint64, []byte) (int, error) {
	return 0, errors.New("no memory")
}

// somewhere is a kernel whose processors are all in one place.
type somewhere struct{}

func (somewhere) Describe(dumps []vmm.Dump, _ kstack.Memory) ([]kstack.Place, error) {
	return []kstack.Place{{Symbol: fmt.Sprintf("f+%#x", dumps[0].Regs.RIP), Backtrace: []string{"g"}}}, nil
}

// start starts a machine whose guest does something.
func start(t *testing.T, does string) *Machine {
	t.Helper()
	t.Setenv(role, does)
	self, err := os.Executable()
	require.NoError(t, err)
	p, err := Start([]string{self}, filepath.Join(t.TempDir(), "husk.log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// all takes events to the End.
func all(t *testing.T, p *Machine) (console string, entered int, end *End) {
	t.Helper()
	var text strings.Builder
	var last time.Duration
	for e := range p.Events() {
		require.Nil(t, end, "the end is the last")
		require.GreaterOrEqual(t, e.At, last)
		last = e.At
		text.Write(e.Console)
		if e.Entered {
			entered++
		}
		end = e.End
	}
	require.NotNil(t, end)
	return text.String(), entered, end
}

func TestEnds(t *testing.T) {
	tests := []struct {
		does, console string
		entered       int
		end           End
	}{
		{"exit", "boot 1\n", 1, End{Guest: &result.Guest{Outcome: "debug-exit", Code: 7}}},
		{"reboot", "boot 1\nboot 2\nboot 3\n", 3, End{Guest: &result.Guest{Outcome: "reboot"}}},
		{"crash", "boot 1\n", 1, End{Guest: &result.Guest{Outcome: "triple-fault", Detail: "vCPU 0"}, VCPUs: []result.VCPU{{Symbol: "f+0x0", Backtrace: []string{"g"}}}}},
		{"fail", "boot 1\n", 1, End{Error: "out of something"}},
		{"unmakable", "", 0, End{Error: "kernel /nowhere: no such file", Unstarted: true}},
		{"panic", "boot 1\n", 1, End{Error: "husk's process for the machine ended unexpectedly (exit status 2): panic: a bug in husk"}},
	}
	for _, tt := range tests {
		t.Run(tt.does, func(t *testing.T) {
			console, entered, end := all(t, start(t, tt.does))
			require.Equal(t, tt.console, console)
			require.Equal(t, tt.entered, entered)
			for i := range end.VCPUs {
				require.Contains(t, end.VCPUs[i].Registers, "RIP")
				end.VCPUs[i].Registers = ""
			}
			require.Equal(t, tt.end, *end)
		})
	}
}

func TestInput(t *testing.T) {
	p := start(t, "echo")
	require.NoError(t, p.Send([]byte("hello")))
	next(t, p, func(e Event) bool { return strings.Contains(string(e.Console), "hello <nil>") })
	require.NoError(t, p.PowerButton())
	_, _, end := all(t, p)
	require.Equal(t, "power-off", end.Guest.Outcome)
	require.Error(t, p.Send([]byte("more")), "it has ended")
}

func next(t *testing.T, p *Machine, is func(Event) bool) Event {
	t.Helper()
	for e := range p.Events() {
		if is(e) {
			return e
		}
	}
	require.Fail(t, "it never came")
	return Event{}
}

func TestDump(t *testing.T) {
	for _, does := range []string{"idle", "stuck"} {
		t.Run(does, func(t *testing.T) { dumpOf(t, does) })
	}
}

func dumpOf(t *testing.T, does string) {
	p := start(t, does)
	next(t, p, func(e Event) bool { return e.Entered })
	require.NoError(t, p.Dump())
	e := next(t, p, func(e Event) bool { return e.Dump != nil })
	require.Equal(t, "only one", e.Dump.Error)
	require.Len(t, e.Dump.VCPUs, 1)
	v := e.Dump.VCPUs[0]
	require.Contains(t, v.Registers, "RIP=0000000000001234")
	v.Registers = ""
	require.Equal(t, result.VCPU{CPU: 1, RIP: 0x1234, Symbol: "f+0x1234", Backtrace: []string{"g"}}, v)
}

// TestClose ends a guest that goes on, and its process; all that it has said comes.
func TestClose(t *testing.T) {
	for _, does := range []string{"idle", "talk"} {
		p := start(t, does)
		next(t, p, func(e Event) bool { return e.Console != nil })
		var text string
		var end *End
		read := make(chan struct{})
		go func() {
			defer close(read)
			text, _, end = all(t, p)
		}()
		require.NoError(t, p.Close())
		<-read
		require.True(t, strings.HasSuffix(text, "cancelled"), text)
		require.Equal(t, End{}, *end)
		require.NotNil(t, p.cmd.ProcessState, "it has ended")
	}
}

// TestKilled: a machine that is killed is the machine's failure, and is said.
func TestKilled(t *testing.T) {
	p := start(t, "idle")
	next(t, p, func(e Event) bool { return e.Console != nil })
	require.NoError(t, p.cmd.Process.Kill())
	_, _, end := all(t, p)
	require.Equal(t, "husk's process for the machine ended unexpectedly (signal: killed)", end.Error)
	require.False(t, end.Unstarted)
}

// TestAllOutput: nothing of the console is lost between the processes.
func TestAllOutput(t *testing.T) {
	console, _, _ := all(t, start(t, "much"))
	require.Equal(t, 20001, strings.Count(console, "\n"))
	require.True(t, strings.HasSuffix(console, "line 19999\n"))
}

// TestTheOtherSideGoes: a machine does not outlive who watches it.
func TestTheOtherSideGoes(t *testing.T) {
	p := start(t, "idle")
	next(t, p, func(e Event) bool { return e.Console != nil })
	require.NoError(t, p.socket.Close())
	_, _, end := all(t, p)
	require.NotEmpty(t, end.Error)
	require.NotNil(t, p.cmd.ProcessState, "it has ended")
}
