package testvm

import (
	"context"
	"errors"
	"fmt"

	"github.com/huskvm/husk/internal/smoke/console"
)

// Expect waits until the console has p, behind what the last Expect has found. When
// the guest ends first, the error is an Ended.
func (g *Guest) Expect(ctx context.Context, p console.Pattern) (console.Match, error) {
	select { // what is there already is looked at also when ctx has ended
	case g.expecting <- struct{}{}:
	default:
		select {
		case g.expecting <- struct{}{}:
		case <-ctx.Done():
			return console.Match{}, fmt.Errorf("%v: another Expect waits: %w", p, context.Cause(ctx))
		}
	}
	defer func() { <-g.expecting }()
	m, err := g.cursor.Expect(ctx, p)
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, console.ErrEnded):
		<-g.life.Done() // it follows
		err = context.Cause(g.life)
	}
	return m, fmt.Errorf("%v is not on the console: %w", p, err)
}
