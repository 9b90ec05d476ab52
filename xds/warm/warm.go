// Package warm tells when a set of things that must be ready before something starts are ready: the
// clusters before the listeners are asked for, a listener's routes before it accepts, everything
// before the server says LIVE. It is Envoy's init manager.
//
// A target is ready when its first answer is there, or when its initial_fetch_timeout says to go on
// without; which of the two is for its owner to know.
package warm

import (
	"context"
	"slices"
	"sync"
)

// Group waits for targets. Make one with New, add the targets, then Start.
type Group struct {
	name string

	mu      sync.Mutex // guards below
	targets map[*Target]struct{}
	started bool
	ready   chan struct{} // closed when started and no target is left
	closed  bool
}

// Target is one thing to wait for.
type Target struct {
	group *Group
	name  string
	once  sync.Once
}

// New makes an empty group; name is for /init_dump.
func New(name string) *Group {
	return &Group{name: name, targets: map[*Target]struct{}{}, ready: make(chan struct{})}
}

// Add adds a target. It may be called from any goroutine; after the group has become ready the
// target is waited for by nobody.
func (g *Group) Add(name string) *Target {
	t := &Target{group: g, name: name}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.targets[t] = struct{}{}
	}
	return t
}

// Start lets the group become ready: at once if no target is left. Targets may be added before and
// after, and each that is added before the group is ready is waited for.
func (g *Group) Start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.started = true
	g.check()
}

// check closes ready when it is time; the caller holds mu.
func (g *Group) check() {
	if g.started && !g.closed && len(g.targets) == 0 {
		g.closed = true
		close(g.ready)
	}
}

// Ready marks the target as ready. Only the first call counts; it may come from any goroutine.
func (t *Target) Ready() {
	t.once.Do(func() {
		t.group.mu.Lock()
		defer t.group.mu.Unlock()
		delete(t.group.targets, t)
		t.group.check()
	})
}

// Done is closed when the group is ready.
func (g *Group) Done() <-chan struct{} { return g.ready }

// Wait blocks until the group is ready or ctx ends, whose error it returns.
func (g *Group) Wait(ctx context.Context) error {
	select {
	case <-g.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Name returns the group's name.
func (g *Group) Name() string { return g.name }

// Unready lists the targets that are waited for, sorted (/init_dump).
func (g *Group) Unready() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]string, 0, len(g.targets))
	for t := range g.targets {
		out = append(out, t.name)
	}
	slices.Sort(out)
	return out
}
