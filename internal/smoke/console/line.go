// Package console keeps what a guest says on its console: every byte, when it
// came by the host's clock, and the lines it makes; and waits for text in it.
package console

import (
	"fmt"
	"time"
)

// A Line is one line of a guest's console.
type Line struct {
	// Start and End are when its first byte and its end came, since the machine's
	// start, by the host's monotonic clock. End is that of the last byte so far where
	// the line has not ended.
	Start time.Duration `json:"start_ns"`
	End   time.Duration `json:"end_ns"`
	// Kernel is the kernel's own stamp, "[    0.123456] " in front of Text, since what
	// it takes for its start; negative where the line has none. The two clocks are
	// never subtracted from one another.
	Kernel time.Duration `json:"kernel_ns"`
	// Text is the line without its end, stamps and log level, and without the
	// sequences that steer a terminal. It may be no UTF-8.
	Text string `json:"text"`
}

// String is the line behind both stamps, the host's and the kernel's in its brackets,
// as "   1.234567  [    0.000012] text".
func (l Line) String() string {
	stamp := ""
	if l.Kernel >= 0 {
		stamp = fmt.Sprintf("[%12.6f] ", l.Kernel.Seconds())
	}
	return fmt.Sprintf("%11.6f  %s%s", l.Start.Seconds(), stamp, l.Text)
}
