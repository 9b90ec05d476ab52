// Package netfilter runs the network filters of one connection, for listeners and clusters alike.
package netfilter

import (
	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// Chain are the network filters before the terminal one, in their configured order.
type Chain []filter.NetworkFactory

// Run are the filters of one connection. The zero value has none.
type Run struct {
	known []filter.UpstreamKnown
	ends  []filter.ConnectionEnd
}

// Begin makes the filters of a connection whose transport is ready and puts them between it and its
// user. It runs on the connection's goroutine and may block; false says that a filter wants the
// connection closed. End must be called in either case.
func (l Chain) Begin(t *stream.Turn, c *filter.Connection) (run Run, ok bool) {
	var reads []wire.ReadTap
	var writes []wire.WriteTap
	for _, factory := range l {
		f := factory.NewNetworkFilter(c)
		if f == nil {
			continue
		}
		if x, is := f.(filter.ConnectionEnd); is {
			run.ends = append(run.ends, x)
		}
		if x, is := f.(filter.UpstreamKnown); is {
			run.known = append(run.known, x)
		}
		if x, is := f.(filter.NewConnection); is && !x.OnNewConnection(t) {
			return run, false
		}
		if x, is := f.(wire.ReadTap); is {
			reads = append(reads, x)
		}
		if x, is := f.(wire.WriteTap); is {
			writes = append(writes, x)
		}
	}
	if len(reads)+len(writes) > 0 {
		c.Wire.Tap(reads, writes)
	}
	if len(run.known) > 0 {
		c.Info.OnUpstream = run.upstreamKnown
	}
	return run, true
}

func (r *Run) upstreamKnown(info *stream.Info) {
	for _, x := range r.known {
		x.OnUpstreamKnown(info)
	}
}

// Watched tells whether a filter wants to see the connection's record.
func (r *Run) Watched() bool { return len(r.ends)+len(r.known) > 0 }

// End tells the filters that the connection has ended.
func (r *Run) End(info *stream.Info) {
	for _, x := range r.ends {
		x.OnConnectionEnd(info)
	}
}

// Retire retires the filters' factories.
func (l Chain) Retire() {
	for _, f := range l {
		if r, ok := f.(filter.Retirer); ok {
			r.Retire()
		}
	}
}
