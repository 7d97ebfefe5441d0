package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine"
)

// psFlags are the flags of husk ps.
type psFlags struct {
	all, quiet, latest, noTrunc bool
	last                        int
	filters                     []string
	format                      string
}

func psVerb() verb {
	return verb{
		name:  "ps",
		args:  "[flags]",
		short: "list machines",
		long: `Lists the machines of husk run: those that run, or with -a all. A machine whose process was
killed is Dead, and says so in husk inspect.

Filters are name=, id=, label=NAME[=VALUE], status= (created, running, paused, stopping, exited,
dead), and ancestor=IMAGE; several of one kind are alternatives.`,
		examples: `husk ps -a
husk ps -q --filter ancestor=nginx
husk ps --format '{{.Names}}: {{.Status}}'`,
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			f := &psFlags{}
			fs.BoolVarP(&f.all, "all", "a", false, "show machines that have ended, too")
			fs.BoolVarP(&f.quiet, "quiet", "q", false, "show IDs only")
			fs.IntVarP(&f.last, "last", "n", -1, "show the last `NUMBER` that were made, whatever they do")
			fs.BoolVarP(&f.latest, "latest", "l", false, "show the last one that was made")
			fs.BoolVar(&f.noTrunc, "no-trunc", false, "do not cut IDs and commands")
			fs.StringArrayVarP(&f.filters, "filter", "f", nil, "show only machines with this `KEY=VALUE`; repeatable")
			fs.StringVar(&f.format, "format", "table", "`FORM` of a line: table, json, or a Go template")
			return func(_ context.Context, e *env, args []string) (int, error) {
				if err := noArgs(args); err != nil {
					return 0, err
				}
				return exitOK, f.list(e)
			}
		},
	}
}

// A psRow is a machine in the list, as templates have it.
type psRow struct {
	ID         string
	Image      string
	Command    string
	CreatedAt  string
	RunningFor string
	Status     string
	State      string
	Ports      string
	Names      string
	Labels     string

	labels map[string]string
}

// Label is for templates.
func (r psRow) Label(name string) string { return r.labels[name] }

// titles are those of fields.
type titles map[string]string

// Label is a label's title, as Docker's: the last part of its name, in words.
func (titles) Label(name string) string {
	return strings.NewReplacer("-", " ", "_", " ").Replace(name[strings.LastIndexByte(name, '.')+1:])
}

// psHeads are the titles of the fields.
var psHeads = titles{
	"ID": "MACHINE ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
	"Status": "STATUS", "State": "STATE", "Ports": "PORTS", "Names": "NAMES", "Labels": "LABELS",
}

const psTable = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"

func (f *psFlags) list(e *env) error {
	wanted, err := parseFilters(f.filters)
	if err != nil {
		return err
	}
	ms, err := openMachines(e)
	if err != nil {
		return err
	}
	list, err := ms.List()
	if err != nil {
		return err
	}
	all := f.all || f.latest || f.last >= 0 || len(wanted["status"]) > 0
	if f.latest {
		f.last = 1
	}
	now := time.Now()
	var rows []psRow
	for _, m := range list {
		state, err := m.State()
		if err != nil { // removed meanwhile
			continue
		}
		if !all && !state.Status.Alive() || !wanted.match(m.Spec(), state) {
			continue
		}
		if f.last >= 0 && len(rows) == f.last {
			break
		}
		rows = append(rows, f.row(m.Spec(), state, now))
	}
	if f.quiet {
		for _, r := range rows {
			fmt.Fprintln(e.stdout, r.ID)
		}
		return nil
	}
	format := f.format
	if format == "table" || format == "" {
		format = psTable
	}
	return printRows(e.stdout, format, psHeads, rows)
}

func (f *psFlags) row(s machine.Spec, state machine.State, now time.Time) psRow {
	command := strings.Join(s.Process.Argv, " ")
	id := s.ID
	if !f.noTrunc {
		command, id = cutText(command, 20), id[:machine.ShortID]
	}
	var labels, ports []string
	for name, value := range s.Labels {
		labels = append(labels, name+"="+value)
	}
	slices.Sort(labels)
	for _, p := range state.Ports {
		ports = append(ports, fmt.Sprintf("%v->%d/%s", p.Host, p.Guest, p.Proto))
	}
	return psRow{
		ID: id, Image: s.Image.Name, Command: `"` + strings.ReplaceAll(command, "\n", " ") + `"`,
		CreatedAt: s.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: humanDuration(now.Sub(s.Created)) + " ago",
		Status: statusText(state, now), State: string(state.Status), Ports: strings.Join(ports, ", "), Names: s.Name,
		Labels: strings.Join(labels, ","), labels: s.Labels,
	}
}

// cutText is a text with at most so many characters.
func cutText(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}

// statusText is Docker's.
func statusText(s machine.State, now time.Time) string {
	switch up := "Up " + humanDuration(now.Sub(s.Started)); s.Status {
	case machine.Running:
		return up
	case machine.Paused:
		return up + " (Paused)"
	case machine.Stopping:
		return up + " (Stopping)"
	case machine.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, humanDuration(now.Sub(s.Finished)))
	case machine.Dead:
		return fmt.Sprintf("Dead (%d)", s.ExitCode)
	}
	return "Created"
}

// humanDuration is a time in words, as Docker has it.
func humanDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return "Less than a second"
	case d < 2*time.Second:
		return "1 second"
	case d < time.Minute:
		return fmt.Sprintf("%d seconds", d/time.Second)
	case d < 2*time.Minute:
		return "About a minute"
	case d < time.Hour:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	case d < 2*time.Hour:
		return "About an hour"
	case d < 2*day:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d < 14*day:
		return fmt.Sprintf("%d days", d/day)
	case d < 60*day:
		return fmt.Sprintf("%d weeks", d/(7*day))
	case d < 730*day:
		return fmt.Sprintf("%d months", d/(30*day))
	}
	return fmt.Sprintf("%d years", d/(365*day))
}

// filters are what a machine must be like: by key, alternatives.
type filters map[string][]string

func parseFilters(texts []string) (filters, error) {
	f := filters{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || !slices.Contains([]string{"name", "id", "label", "status", "ancestor"}, key) {
			return nil, usagef("--filter %q: write name=, id=, label=, status= or ancestor=, and a value", text)
		}
		f[key] = append(f[key], value)
	}
	return f, nil
}

func (f filters) match(s machine.Spec, state machine.State) bool {
	for key, values := range f {
		is := func(value string) bool {
			switch key {
			case "name":
				return strings.Contains(s.Name, strings.TrimPrefix(value, "/"))
			case "id":
				return strings.HasPrefix(s.ID, value)
			case "status":
				return string(state.Status) == value
			case "ancestor":
				name, _, _ := strings.Cut(s.Image.Name, "@")
				return cmp.Or(value, "-") == s.Image.Name || strings.TrimSuffix(name, ":latest") == strings.TrimSuffix(value, ":latest") ||
					repository(name) == value || strings.HasPrefix(strings.TrimPrefix(s.Image.ID, "sha256:"), strings.TrimPrefix(value, "sha256:"))
			}
			name, want, valued := strings.Cut(value, "=")
			got, has := s.Labels[name]
			return has && (!valued || got == want)
		}
		matches := slices.ContainsFunc(values, is)
		if key == "label" { // all of them
			matches = !slices.ContainsFunc(values, func(v string) bool { return !is(v) })
		}
		if !matches {
			return false
		}
	}
	return true
}

// repository is an image's name without its tag.
func repository(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
