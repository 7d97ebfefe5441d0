package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine"
	"github.com/huskvm/husk/internal/machine/control"
	"github.com/huskvm/husk/internal/term"
)

func statsVerb() verb {
	return verb{
		name:  "stats",
		args:  "[flags] [MACHINE...]",
		short: "show what machines use, live",
		long: `Shows every second what machines use, all that run unless some are named. CPU % is the time of
the host's processors that the machine's process takes, 100% for one of them; MEM is what of the
guest's memory the host has given, and VMM what husk itself has beside that. NET I/O is what the
guest has received and sent, BLOCK I/O what it has read and written on its disks.`,
		examples:   "husk stats\nhusk stats --no-stream --format json web",
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			once := fs.Bool("no-stream", false, "show one reading, and end")
			all := fs.BoolP("all", "a", false, "show machines that do not run, too")
			noTrunc := fs.Bool("no-trunc", false, "do not cut IDs")
			format := fs.String("format", "table", "`FORM` of a line: table, json, or a Go template")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				ctx, stop := interruptible(ctx)
				defer stop()
				ms, err := openMachines(e)
				if err != nil {
					return 0, err
				}
				w := statsWatch{machines: ms, names: args, all: *all, noTrunc: *noTrunc, before: map[string]control.Usage{}}
				for _, name := range args {
					if _, err := ms.Find(name); err != nil {
						return 0, err
					}
				}
				return w.show(ctx, e, *format, *once)
			}
		},
	}
}

// A statsRow is a machine's use, as templates have it.
type statsRow struct {
	ID, Name, CPUPerc, MemUsage, MemPerc, VMM, NetIO, BlockIO string
}

var statsHeads = map[string]string{
	"ID": "MACHINE ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "VMM": "VMM",
	"NetIO": "NET I/O", "BlockIO": "BLOCK I/O",
}

const statsTable = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.VMM}}\t{{.NetIO}}\t{{.BlockIO}}"

// A statsWatch reads what machines use, again and again.
type statsWatch struct {
	machines     *machine.Machines
	names        []string
	all, noTrunc bool
	before       map[string]control.Usage // by ID
}

// statsEvery is the time between two readings.
const statsEvery = time.Second

// clearScreen goes to the top left, and clearBelow what is left of the last picture.
const (
	clearScreen = "\x1b[H"
	clearLine   = "\x1b[K\n"
	clearBelow  = "\x1b[J"
)

func (w *statsWatch) show(ctx context.Context, e *env, format string, once bool) (int, error) {
	if format == "table" || format == "" {
		format = statsTable
	}
	f, isFile := e.stdout.(*os.File)
	live := !once && isFile && term.IsTerminal(f)
	if live {
		fmt.Fprint(e.stdout, clearBelow, "\x1b[2J")
	}
	if _, err := w.read(ctx); err != nil { // what the first shares are measured from
		return interrupted(ctx, err)
	}
	for {
		select {
		case <-ctx.Done():
			return interrupted(ctx, context.Cause(ctx))
		case <-time.After(statsEvery):
		}
		rows, err := w.read(ctx)
		if err != nil {
			return interrupted(ctx, err)
		}
		var picture bytes.Buffer
		if err := printRows(&picture, format, statsHeads, rows); err != nil {
			return 0, err
		}
		text := picture.String()
		if live {
			text = clearScreen + strings.ReplaceAll(text, "\n", clearLine) + clearBelow
		}
		if _, err := io.WriteString(e.stdout, text); err != nil || once {
			return exitOK, err
		}
	}
}

// read takes one reading of each machine.
func (w *statsWatch) read(ctx context.Context) ([]statsRow, error) {
	list, err := w.machines.List()
	if err != nil {
		return nil, err
	}
	var chosen []*machine.Machine
	for _, m := range list {
		state, err := m.State()
		switch {
		case err != nil: // removed meanwhile
		case len(w.names) > 0:
			if slices.ContainsFunc(w.names, func(n string) bool { return n == m.Name() || strings.HasPrefix(m.ID(), n) }) {
				chosen = append(chosen, m)
			}
		case w.all || state.Status.Alive():
			chosen = append(chosen, m)
		}
	}
	usages := make([]control.Usage, len(chosen))
	var reading sync.WaitGroup
	for i, m := range chosen {
		reading.Go(func() { usages[i], _ = m.Stats(ctx) }) // of one that does not run, nothing
	}
	reading.Wait()
	rows := make([]statsRow, len(chosen))
	for i, m := range chosen {
		id := m.ID()
		if !w.noTrunc {
			id = id[:machine.ShortID]
		}
		rows[i] = rowOf(id, m.Name(), w.before[m.ID()], usages[i])
		w.before[m.ID()] = usages[i]
	}
	return rows, nil
}

// rowOf is a machine's use between two readings.
func rowOf(id, name string, before, u control.Usage) statsRow {
	r := statsRow{ID: id, Name: name, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", VMM: "--", NetIO: "-- / --", BlockIO: "-- / --"}
	if u.At.IsZero() {
		return r
	}
	if passed := u.At.Sub(before.At); !before.At.IsZero() && passed > 0 {
		r.CPUPerc = fmt.Sprintf("%.2f%%", 100*float64(u.CPU-before.CPU)/float64(passed))
	}
	r.MemUsage = size1024(u.Memory.GuestResident) + " / " + size1024(u.Memory.GuestRAM)
	r.MemPerc = fmt.Sprintf("%.2f%%", 100*float64(u.Memory.GuestResident)/float64(max(u.Memory.GuestRAM, 1)))
	r.VMM = size1024(u.Memory.VMMResident)
	r.NetIO = size1000(u.IO.ReceivedBytes) + " / " + size1000(u.IO.SentBytes)
	r.BlockIO = size1000(u.IO.ReadBytes) + " / " + size1000(u.IO.WriteBytes)
	return r
}

// size1024 is a size in bytes as Docker shows memory, and size1000 as it shows traffic.
func size1024(n uint64) string { return sizeText(n, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"}) }
func size1000(n uint64) string { return sizeText(n, 1000, []string{"B", "kB", "MB", "GB", "TB"}) }

func sizeText(n uint64, base float64, units []string) string {
	f, i := float64(n), 0
	for f >= base && i < len(units)-1 {
		f /= base
		i++
	}
	return fmt.Sprintf("%.4g%s", f, units[i])
}
