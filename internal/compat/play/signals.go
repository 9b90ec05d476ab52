package play

import (
	"context"
	"sync"
	"time"
)

// signals lets the scripts of one case wait for each other. A signal stays given.
type signals struct {
	mu    sync.Mutex
	given map[string]chan struct{} // guarded by mu
}

func newSignals() *signals { return &signals{given: map[string]chan struct{}{}} }

func (s *signals) channel(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.given[name]
	if !ok {
		c = make(chan struct{})
		s.given[name] = c
	}
	return c
}

func (s *signals) give(name string) {
	c := s.channel(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}

// waitFor is wait with a limit, after which a client goes on to say what it got.
func (s *signals) waitFor(ctx context.Context, within time.Duration, name string) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return s.wait(ctx, name)
}

func (s *signals) wait(ctx context.Context, name string) error {
	select {
	case <-s.channel(name):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
