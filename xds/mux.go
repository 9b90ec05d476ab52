package xds

import (
	"cmp"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/config/source"
	"sidecar/xds/transport"
)

// mux is one stream to a management server with the feeds that it carries: all types for ADS, else
// one. It is owned by the client's goroutine.
type mux struct {
	c      *Client
	key    string
	cfg    *source.GRPC
	stream *transport.Stream
	stats  *source.ControlPlaneStats
	feeds  []*muxFeed // in order of rank

	gen        uint64 // of the open stream; 0 when it is not open
	identifier string // of the server
	nodeSent   bool
	dirty      bool
}

// muxFeed is a feed with its state of the protocol, which is either of the two.
type muxFeed struct {
	*feed
	mux   *mux
	sotw  sotwState
	delta deltaState
}

// open opens a stream. The stats that its rate limit counts in are those of the first who needs it.
func (c *Client) open(key string, cfg *source.GRPC, method string, st *source.ControlPlaneStats) *mux {
	m := &mux{c: c, key: key, cfg: cfg, stats: st}
	if m.stats == nil {
		m.stats = &source.ControlPlaneStats{}
	}
	newResponse := func() proto.Message { return new(discoveryv3.DiscoveryResponse) }
	if cfg.Delta {
		newResponse = func() proto.Message { return new(discoveryv3.DeltaDiscoveryResponse) }
	}
	m.stream = transport.Start(c.ctx, transport.Options{
		Method: method, GRPC: cfg, Dialer: c.cfg.Dialer, NewResponse: newResponse,
		Handler: (*muxEvents)(m), Stats: m.stats, Log: c.cfg.Log,
	})
	return m
}

func (m *mux) feed(k kind) *feed {
	for _, f := range m.feeds {
		if f.kind.url == k.url {
			return f.feed
		}
	}
	f := &muxFeed{feed: newFeed(m.c, k), mux: m}
	f.port = f
	m.feeds = append(m.feeds, f)
	slices.SortStableFunc(m.feeds, func(a, b *muxFeed) int {
		return cmp.Compare(a.kind.rank, b.kind.rank)
	})
	return f.feed
}

// muxEvents takes the stream's events to the client's goroutine.
type muxEvents mux

// Opened implements transport.Handler.
func (e *muxEvents) Opened(gen uint64) { e.c.post(func() { (*mux)(e).opened(gen) }) }

// Received implements transport.Handler. It waits until the response has been applied: what a
// server sends faster than it can be taken in stays in the socket.
func (e *muxEvents) Received(gen uint64, msg proto.Message) {
	done := make(chan struct{})
	e.c.post(func() {
		defer close(done)
		(*mux)(e).received(gen, msg)
	})
	select {
	case <-done:
	case <-e.c.ctx.Done():
	}
}

// Closed implements transport.Handler.
func (e *muxEvents) Closed(gen uint64, err error) {
	e.c.post(func() { (*mux)(e).disconnected(gen, err) })
}

func (m *mux) opened(gen uint64) {
	m.gen, m.nodeSent = gen, false
	m.eachStats(func(st *source.ControlPlaneStats) { st.ConnectedState.Set(1) })
	m.c.cfg.Log.Info("xds: stream opened", "stream", m.stream.String())
	for _, f := range m.feeds {
		f.sotw.opened()
		f.delta.opened()
	}
	m.wantFlush()
}

func (m *mux) disconnected(gen uint64, err error) {
	m.c.cfg.Log.Warn("xds: stream closed", "stream", m.stream.String(), "error", err)
	if m.gen == gen {
		m.gen = 0
	}
	m.eachStats(func(st *source.ControlPlaneStats) { st.ConnectedState.Set(0) })
	for _, f := range m.feeds {
		f.each((*subscription).failed)
	}
}

func (m *mux) received(gen uint64, msg proto.Message) {
	if gen != m.gen {
		return
	}
	switch msg := msg.(type) {
	case *discoveryv3.DiscoveryResponse:
		m.identify(msg.GetControlPlane().GetIdentifier())
		if f := m.find(msg.GetTypeUrl()); f != nil {
			f.receiveSotw(msg)
		}
	case *discoveryv3.DeltaDiscoveryResponse:
		m.identify(msg.GetControlPlane().GetIdentifier())
		if f := m.find(msg.GetTypeUrl()); f != nil {
			f.receiveDelta(msg)
		}
	}
}

func (m *mux) identify(id string) {
	if id == m.identifier {
		return
	}
	m.identifier = id
	m.eachStats(func(st *source.ControlPlaneStats) { st.Identifier.Set(id) })
}

// eachStats calls fn for the stats of everyone who shares the stream.
func (m *mux) eachStats(fn func(*source.ControlPlaneStats)) {
	fn(m.stats)
	if m.key == "" {
		return
	}
	for _, f := range m.feeds {
		f.each(func(s *subscription) {
			if st := s.spec.ControlPlane; st != nil && st != m.stats {
				fn(st)
			}
		})
	}
}

// joined tells a late subscriber's stats what the stream is like.
func (m *mux) joined(st *source.ControlPlaneStats) {
	if st == nil {
		return
	}
	if m.gen != 0 {
		st.ConnectedState.Set(1)
	}
	if m.identifier != "" {
		st.Identifier.Set(m.identifier)
	}
}

// find returns the feed of a type. Types that nobody here asked for are for somebody else on the
// way (an agent's name tables and health checks) and are left alone.
func (m *mux) find(url string) *muxFeed {
	for _, f := range m.feeds {
		if f.kind.url == url {
			return f
		}
	}
	m.c.cfg.Log.Debug("xds: response of a type without subscribers", "type", url)
	return nil
}

func (m *mux) wantFlush() {
	if !m.dirty {
		m.dirty = true
		m.c.dirty = append(m.c.dirty, m)
	}
}

// flush sends what the feeds have to say, in order of rank.
func (m *mux) flush() {
	m.dirty = false
	if m.gen == 0 {
		return
	}
	for _, f := range m.feeds {
		if m.cfg.Delta {
			f.sendDelta()
		} else {
			f.sendSotw()
		}
		clear(f.left)
	}
}

// interest implements port.
func (f *muxFeed) interest() {
	f.sotw.dirty = f.sotw.dirty || f.sotw.rev != f.rev
	f.mux.wantFlush()
}

// tell implements port.
func (f *muxFeed) tell() {
	f.interest()
	f.mux.flush()
	clear(f.left) // without a stream: the next one begins with all names
}

// unused implements port.
func (f *muxFeed) unused() {
	if f.mux.key != "" {
		f.mux.c.closeMux(f.mux)
		return
	}
	f.interest()
}

// replied implements port.
func (f *muxFeed) replied(r *reply) {
	switch {
	case !f.mux.cfg.Delta:
		f.sotw.replied(r, f.mux.gen)
	case r.gen == f.mux.gen:
		f.delta.acks = append(f.delta.acks, deltaAck{nonce: r.nonce, err: nack(r.text())})
	}
	f.mux.wantFlush()
}

// nack makes the error_detail of a request; nil acknowledges.
func nack(text string) *statuspb.Status {
	if text == "" {
		return nil
	}
	return &statuspb.Status{Code: int32(codes.Internal), Message: truncate(text)} // as Envoy
}
