package machine

import (
	"context"

	"github.com/huskvm/husk/internal/machine/jsonlog"
)

// Logs calls f with what the machine's command has written. To follow ends with the machine.
func (m *Machine) Logs(ctx context.Context, o jsonlog.Options, f func(jsonlog.Entry) error) error {
	o.Ended = func() bool {
		state, err := m.State()
		return err != nil || state.PID == 0 || state.Status == Exited
	}
	return jsonlog.Read(ctx, m.LogFile(), o, f)
}
