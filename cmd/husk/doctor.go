package main

import (
	"context"
	"encoding/json"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/doctor"
)

func doctorVerb() verb {
	return verb{
		name:  "doctor",
		args:  "[--json]",
		short: "say what this host can do, and what to do about what it cannot",
		long: `Opens /dev/kvm, asks KVM for its abilities, runs a tiny guest to see whether a guest's
kernel mode runs on the processor or is emulated, and looks at memory, networking, the
kernels in /boot and what the lab needs. "ok" is fine, "note" could be better, and "bad"
keeps husk boot from using KVM.

Exit codes:
  0    husk boot runs on KVM
  1    husk boot runs in the lab only
  2    husk boot can run neither way
  125  husk itself failed`,
		examples: `husk doctor
# In a script: the verdict alone
husk doctor --json | jq -r .verdict`,
		define: func(fs *pflag.FlagSet) runner {
			asJSON := fs.Bool("json", false, "print everything found as JSON")
			return func(_ context.Context, e *env, args []string) (int, error) {
				if err := noArgs(args); err != nil {
					return 0, err
				}
				return runDoctor(e, e.examine(), *asJSON)
			}
		},
	}
}

func runDoctor(e *env, r *doctor.Report, asJSON bool) (int, error) {
	if asJSON {
		out := json.NewEncoder(e.stdout)
		out.SetIndent("", "  ")
		if err := out.Encode(r); err != nil {
			return 0, err
		}
	} else if err := r.Write(e.stdout); err != nil {
		return 0, err
	}
	return map[doctor.Verdict]int{doctor.OnKVM: exitOK, doctor.InLab: 1, doctor.Nowhere: 2}[r.Verdict], nil
}
