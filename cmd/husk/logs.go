package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/machine/jsonlog"
)

func logsVerb() verb {
	return verb{
		name:  "logs",
		args:  "[flags] MACHINE",
		short: "show what a machine's command has written",
		long: `Shows the output of a machine's command, each stream where it was written to. A TIME is one
as 2006-01-02T15:04:05Z, with less of it too, seconds since 1970, or how long ago: 10m.`,
		examples:   "husk logs web\n# The last ten lines, and what comes\nhusk logs -f -n 10 web",
		failedCode: exitMachine,
		define: func(fs *pflag.FlagSet) runner {
			follow := fs.BoolP("follow", "f", false, "wait for more, until the machine ends")
			since := fs.String("since", "", "only what was written after this `TIME`")
			until := fs.String("until", "", "only what was written before this `TIME`")
			tail := fs.StringP("tail", "n", "all", "only the last `NUMBER` of lines")
			stamps := fs.BoolP("timestamps", "t", false, "show when each line was written")
			console := fs.Bool("console", false, "show what the guest's kernel has said instead")
			return func(ctx context.Context, e *env, args []string) (int, error) {
				m, err := oneMachine(e, args)
				if err != nil {
					return 0, err
				}
				if *console {
					return exitOK, printFile(e.stdout, m.ConsoleFile())
				}
				o := jsonlog.Options{Follow: *follow, Tail: -1}
				now := time.Now()
				for _, bound := range []struct {
					flag, text string
					to         *time.Time
				}{{"since", *since, &o.Since}, {"until", *until, &o.Until}} {
					if *bound.to, err = parseTime(bound.text, now); err != nil {
						return 0, usagef("--%s: %v", bound.flag, err)
					}
				}
				if *tail != "all" {
					if o.Tail, err = strconv.Atoi(*tail); err != nil {
						return 0, usagef("--tail %q: a number, or all", *tail)
					}
				}
				ctx, stop := interruptible(ctx)
				defer stop()
				p := logPrinter{stdout: e.stdout, stderr: e.stderr, stamps: *stamps, middle: map[string]bool{}}
				if err := m.Logs(ctx, o, p.print); err != nil && ctx.Err() == nil {
					return 0, err
				}
				if ctx.Err() != nil {
					return interrupted(ctx, context.Cause(ctx))
				}
				return exitOK, nil
			}
		},
	}
}

// A logPrinter shows entries of a log.
type logPrinter struct {
	stdout, stderr io.Writer
	stamps         bool
	middle         map[string]bool // by stream: its last line has not ended
}

func (p *logPrinter) print(entry jsonlog.Entry) error {
	w := p.stdout
	if entry.Stream == jsonlog.Stderr {
		w = p.stderr
	}
	b := entry.Bytes()
	if p.stamps && !p.middle[entry.Stream] {
		b = append([]byte(entry.Time.Format(time.RFC3339Nano)+" "), b...)
	}
	p.middle[entry.Stream] = len(b) > 0 && b[len(b)-1] != '\n'
	_, err := w.Write(b)
	return err
}

// printFile shows a file that may not be there.
func printFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// parseTime reads a time as Docker has them; "" is none.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds > -1e11 && seconds < 1e11 {
		return time.UnixMilli(int64(seconds * 1000)), nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write 2006-01-02T15:04:05, 10m, or seconds since 1970", text)
}
