package report

import (
	"encoding/json"
	"io"
	"slices"

	"github.com/huskvm/husk/internal/smoke/result"
)

// JSON writes the run as it is: its "schema" says which form that is, times are in
// nanoseconds, and lists are never null. A byte of a console that is no UTF-8 is the
// character U+FFFD; the bytes themselves are in the console.log of the attempt's
// "dir".
func JSON(w io.Writer, run *result.Run) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // for people, and "<TASK>" is in every trace
	return enc.Encode(listed(run))
}

// listed is a copy of the run with empty lists in the place of nil ones.
func listed(run *result.Run) *result.Run {
	r := *run
	r.Cases = notNil(slices.Clone(run.Cases))
	for i := range r.Cases {
		c := &r.Cases[i]
		c.Attempts = notNil(slices.Clone(c.Attempts))
		for j := range c.Attempts {
			a := &c.Attempts[j]
			a.Phases, a.Steps, a.Console = notNil(a.Phases), notNil(a.Steps), notNil(a.Console)
			a.Findings = slices.Clone(a.Findings)
			for k := range a.Findings {
				a.Findings[k].Trace = notNil(a.Findings[k].Trace)
			}
		}
	}
	return &r
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
