package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// What the shell prints around each script of a batch, on both streams.
const (
	batchBegin = "\n@@ a script of a batch\n"
	batchEnd   = "\n@@ its exit code: "
)

// batchScript runs each of its arguments as a script of its own.
const batchScript = `for s; do
printf '\n@@ a script of a batch\n'; printf '\n@@ a script of a batch\n' >&2
sh -c "$s" </dev/null
printf '\n@@ its exit code: %s\n' $?
done`

// A group is what one container runs: one test, or scripts with the same image and
// flags.
type group struct {
	container
	tests []test
}

// groups puts tests together, in their order.
func groups(list []test) []group {
	var all []group
	for _, t := range list {
		if t.image == "" {
			t.image = "busy"
		}
		if t.script != "" {
			i := slices.IndexFunc(all, func(g group) bool {
				return g.tests[0].script != "" && g.image == t.image && slices.Equal(g.flags, t.flags)
			})
			if i >= 0 {
				all[i].tests = append(all[i].tests, t)
				all[i].argv = append(all[i].argv, t.script)
				continue
			}
			all = append(all, group{container{t.image, t.flags, []string{"sh", "-c", batchScript, "sh", t.script}, ""}, []test{t}})
			continue
		}
		all = append(all, group{container{t.image, t.flags, t.argv, t.stdin}, []test{t}})
	}
	return all
}

// run runs a group, and gives the outcome of each of its tests by its name.
func (g group) run(ctx context.Context, r runtime) (map[string]outcome, error) {
	whole, err := r.run(ctx, g.container)
	if err != nil {
		return nil, err
	}
	if g.tests[0].script == "" {
		return map[string]outcome{g.tests[0].name: whole}, nil
	}
	outs, errs := strings.Split(whole.Stdout, batchBegin), strings.Split(whole.Stderr, batchBegin)
	if whole.Code != 0 || len(outs) != len(g.tests)+1 || len(errs) != len(outs) {
		return nil, fmt.Errorf("a batch of %d in %s with %q broke down, with exit code %d\n--- stdout\n%s\n--- stderr\n%s",
			len(g.tests), g.image, g.flags, whole.Code, whole.Stdout, whole.Stderr)
	}
	all := map[string]outcome{}
	for i, t := range g.tests {
		out, code, _ := strings.Cut(outs[i+1], batchEnd)
		n, err := strconv.Atoi(strings.TrimSpace(code))
		if err != nil {
			return nil, fmt.Errorf("%s: its end is missing: %q", t.name, outs[i+1])
		}
		all[t.name] = outcome{Code: n, Stdout: out, Stderr: errs[i+1]}
	}
	return all, nil
}
