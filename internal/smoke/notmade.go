package smoke

import (
	"time"

	"github.com/huskvm/husk/internal/smoke/result"
)

// NotMade is the result of a case that could not be tried at all, for a reason that is no
// fault of its own.
func (c Case) NotMade(reason error, repeat ...string) result.Case {
	c = c.withDefaults()
	out := c.result()
	out.Verdict, out.Reproduce = result.Infrastructure, c.Reproduce(repeat...)
	out.Attempts = []result.Attempt{{Verdict: out.Verdict, Reason: reason.Error(), Started: time.Now()}}
	return out
}
