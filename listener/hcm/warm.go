package hcm

import (
	"context"
	"errors"

	"sidecar/api/filter"
)

var (
	_ filter.NetworkTerminal = (*Config)(nil)
	_ filter.Warmer          = (*Config)(nil)
	_ filter.Awaiter         = (*Config)(nil)
	_ filter.Retirer         = (*Config)(nil)
)

// parts calls f with everything that the manager holds and that may have to be started or let go.
func (c *Config) parts(f func(any)) {
	f(c.routes)
	for i := range c.filters {
		f(c.filters[i].factory)
	}
	for _, l := range c.accessLogs {
		f(l)
	}
	for i := range c.upgrades {
		for j := range c.upgrades[i].filters {
			f(c.upgrades[i].filters[j].factory)
		}
	}
}

// Warm implements filter.Warmer.
func (c *Config) Warm(ctx context.Context) error {
	var errs []error
	c.parts(func(x any) {
		if w, ok := x.(filter.Warmer); ok {
			errs = append(errs, w.Warm(ctx))
		}
	})
	return errors.Join(errs...)
}

// Await implements filter.Awaiter. All subscriptions are open before the first is waited for.
func (c *Config) Await(ctx context.Context) { //nolint:contextcheck // subscriptions outlive the wait
	opened, cancel := context.WithCancel(ctx)
	cancel()
	for _, wait := range []context.Context{opened, ctx} {
		c.parts(func(x any) {
			if a, ok := x.(filter.Awaiter); ok {
				a.Await(wait)
			}
		})
	}
}

// Retire implements filter.Retirer.
func (c *Config) Retire() {
	c.parts(func(x any) {
		if r, ok := x.(filter.Retirer); ok {
			r.Retire()
		}
	})
}
