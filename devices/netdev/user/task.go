package user

import "sync"

// slots counts what is bounded.
type slots chan struct{}

func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) release() { <-s }

// A group is goroutines that Close waits for. None begins after close.
type group struct {
	mu     sync.Mutex
	wg     sync.WaitGroup
	closed bool
}

// enter counts the calling goroutine in until leave, and returns true, unless the
// group is closed.
func (g *group) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Add(1)
	return true
}

func (g *group) leave() { g.wg.Done() }

// run starts f and returns true, unless the group is closed.
func (g *group) run(f func()) bool {
	if !g.enter() {
		return false
	}
	go func() {
		defer g.leave()
		f()
	}()
	return true
}

func (g *group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (g *group) wait() { g.wg.Wait() }
