package virtio

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// logEvery is how often the same message is logged, at most.
const logEvery = 10 * time.Second

// limited returns log, with each message let through once per logEvery, and how
// often it was left out before. Messages are constants of the code, so few; what
// differs from time to time goes into attributes.
func limited(log *slog.Logger) *slog.Logger {
	return slog.New(&limiter{Handler: log.Handler(), seen: &seen{last: map[string]*seenMessage{}}})
}

type limiter struct {
	slog.Handler
	seen *seen
}

type seen struct {
	mu   sync.Mutex
	last map[string]*seenMessage
}

type seenMessage struct {
	at      time.Time
	leftOut int
}

// Handle implements slog.Handler.
func (l *limiter) Handle(ctx context.Context, r slog.Record) error {
	l.seen.mu.Lock()
	m := l.seen.last[r.Message]
	if m == nil {
		m = new(seenMessage)
		l.seen.last[r.Message] = m
	} else if r.Time.Sub(m.at) < logEvery {
		m.leftOut++
		l.seen.mu.Unlock()
		return nil
	}
	leftOut := m.leftOut
	m.at, m.leftOut = r.Time, 0
	l.seen.mu.Unlock()
	if leftOut > 0 {
		r.AddAttrs(slog.Int("left_out", leftOut))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler. The limit is shared.
func (l *limiter) WithAttrs(a []slog.Attr) slog.Handler {
	return &limiter{Handler: l.Handler.WithAttrs(a), seen: l.seen}
}

// WithGroup implements slog.Handler. The limit is shared.
func (l *limiter) WithGroup(name string) slog.Handler {
	return &limiter{Handler: l.Handler.WithGroup(name), seen: l.seen}
}
