package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine"
)

func inspectVerb() verb {
	return verb{
		name:  "inspect",
		args:  "[flags] MACHINE...",
		short: "show all that is known of machines, as JSON",
		long: `Shows what machines were made from and how they are. Id, Name, Created, State, Config, Image
and NetworkSettings are named as Docker names them; Spec is husk's own, whole.`,
		examples:   "husk inspect web\nhusk inspect -f '{{.State.Status}} {{.NetworkSettings.IPAddress}}' web",
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			format := fs.StringP("format", "f", "", "a Go `TEMPLATE` for each machine")
			return func(_ context.Context, e *env, args []string) (int, error) {
				return inspect(e, *format, args)
			}
		},
	}
}

// An inspected machine is what inspect shows.
type inspected struct {
	ID      string `json:"Id"`
	Name    string
	Created time.Time
	State   inspectedState
	Image   string
	Config  inspectedConfig

	NetworkSettings inspectedNetwork
	Paths           inspectedPaths
	Spec            machine.Spec
}

type inspectedState struct {
	Status     machine.Status
	Running    bool
	Paused     bool
	Dead       bool
	OOMKilled  bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  time.Time
	FinishedAt time.Time
}

type inspectedConfig struct {
	Hostname   string
	Image      string
	Cmd        []string
	Env        []string
	User       string
	WorkingDir string
	Tty        bool
	OpenStdin  bool
	StopSignal string
	Labels     map[string]string
}

type inspectedNetwork struct {
	IPAddress string
	Ports     map[string][]inspectedPort
}

type inspectedPort struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

type inspectedPaths struct {
	Folder, Log, Console string
	RW                   string `json:",omitempty"`
}

func inspect(e *env, format string, names []string) (int, error) {
	if len(names) == 0 {
		return 0, usagef("name a machine, or several; see husk ps -a")
	}
	t, err := parseFormat(format)
	if err != nil {
		return 0, err
	}
	ms, err := openMachines(e)
	if err != nil {
		return 0, err
	}
	code, list := exitOK, []inspected{}
	for _, name := range names {
		m, err := ms.Find(name)
		var state machine.State
		if err == nil {
			state, err = m.State()
		}
		if err != nil {
			fmt.Fprintf(e.stderr, "husk: %s: %v\n", name, err)
			code = exitMachine
			continue
		}
		list = append(list, look(m, state))
	}
	if format == "" {
		out := json.NewEncoder(e.stdout)
		out.SetIndent("", "    ")
		out.SetEscapeHTML(false)
		return code, out.Encode(list)
	}
	for _, i := range list {
		if err := t.Execute(e.stdout, i); err != nil {
			return 0, fmt.Errorf("--format: %w", err)
		}
		fmt.Fprintln(e.stdout)
	}
	return code, nil
}

// look is what there is to show of a machine.
func look(m *machine.Machine, state machine.State) inspected {
	s := m.Spec()
	i := inspected{
		ID: s.ID, Name: s.Name, Created: s.Created, Image: s.Image.ID,
		State: inspectedState{
			Status: state.Status, Running: state.Status.Alive(), Paused: state.Status == machine.Paused, Dead: state.Status == machine.Dead,
			OOMKilled: state.OOMKilled, Pid: state.PID, ExitCode: state.ExitCode, Error: state.Error, StartedAt: state.Started, FinishedAt: state.Finished,
		},
		Config: inspectedConfig{
			Hostname: s.Hostname, Image: s.Image.Name, Cmd: s.Process.Argv, Env: s.Process.Env, User: s.Process.User, WorkingDir: s.Process.Dir,
			Tty: s.Process.TTY, OpenStdin: s.Process.OpenStdin, StopSignal: s.Process.StopSignal, Labels: s.Labels,
		},
		NetworkSettings: inspectedNetwork{IPAddress: state.IP, Ports: map[string][]inspectedPort{}},
		Paths:           inspectedPaths{Folder: m.Folder(), Log: m.LogFile(), Console: m.ConsoleFile()},
		Spec:            s,
	}
	if s.RWSize > 0 {
		i.Paths.RW = m.UpperFile()
	}
	for _, p := range state.Ports {
		key := fmt.Sprintf("%d/%s", p.Guest, p.Proto)
		i.NetworkSettings.Ports[key] = append(i.NetworkSettings.Ports[key], inspectedPort{p.Host.Addr().String(), fmt.Sprint(p.Host.Port())})
	}
	return i
}
