package cluster_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/discover"
	"sidecar/cluster/pool"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/wire"
)

// idleCodec is a connection that answers nothing and ends when it is told to, or by the peer.
type idleCodec struct {
	conn *wire.Conn
	h    pool.Handler

	mu     sync.Mutex
	gone   bool
	active bool
	local  bool
}

func (c *idleCodec) NewStream(*stream.Turn, stream.Target) stream.Encoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil
	}
	c.active = true
	return c
}

func (c *idleCodec) Close(*stream.Turn) {
	c.mu.Lock()
	c.local = true
	c.mu.Unlock()
	c.conn.Close()
}

func (c *idleCodec) Serve() {
	t := stream.NewTurn()
	for {
		b, _, err := c.conn.Read(64, func() bool { return true })
		if err != nil {
			break
		}
		b.Put()
	}
	c.conn.Close()
	c.mu.Lock()
	c.gone = true
	g := pool.Gone{Local: c.local, Active: c.active}
	c.mu.Unlock()
	c.h.OnGone(t, g)
	t.End()
}

func (c *idleCodec) end(t *stream.Turn) {
	c.mu.Lock()
	c.active = false
	c.mu.Unlock()
	c.h.OnIdle(t)
}

func (c *idleCodec) EncodeInterim(*stream.Turn, *header.Map)       {}
func (c *idleCodec) EncodeHeaders(*stream.Turn, *header.Map, bool) {}
func (c *idleCodec) EncodeData(*stream.Turn, []byte, bool)         {}
func (c *idleCodec) EncodeTrailers(*stream.Turn, *header.Map)      {}
func (c *idleCodec) Full() bool                                    { return false }
func (c *idleCodec) Pause(*stream.Turn, bool)                      {}
func (c *idleCodec) Reset(t *stream.Turn, _ *stream.Fault)         { c.Close(t) }
func (c *idleCodec) Release(*stream.Turn)                          {}
func (c *idleCodec) Protocol() stream.Protocol                     { return stream.HTTP11 }
func (c *idleCodec) Traffic() stream.Traffic                       { return stream.Traffic{} }

// rig is a manager with everything around it.
type rig struct {
	*cluster.Manager
	t     testing.TB
	store *stats.Store
	subs  *subscriber
	dns   *fakeDNS
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{t: tb, store: stats.New(), subs: &subscriber{}, dns: &fakeDNS{names: map[string]discover.Answer{}}}
	r.Manager = cluster.NewManager(cluster.Options{
		Ctx:         context.WithoutCancel(tb.Context()),
		Scope:       r.store.Root(),
		Log:         slog.New(slog.DiscardHandler),
		Concurrency: 2,
		Random:      rand.Uint64,
		Subscriber:  r.subs,
		NewResolver: func(discover.ResolverOptions) discover.Resolver { return r.dns },
		NewCodec: func(conn *wire.Conn, _ *cluster.HTTPOptions, h pool.Handler) pool.Codec {
			return &idleCodec{conn: conn, h: h}
		},
	})
	tb.Cleanup(r.Close)
	return r
}

// parse reads a cluster in YAML.
func parse(tb testing.TB, yaml string) *clusterv3.Cluster {
	tb.Helper()
	msg := &clusterv3.Cluster{}
	unmarshal(tb, yaml, msg)
	return msg
}

func unmarshal(tb testing.TB, yaml string, msg proto.Message) {
	tb.Helper()
	if _, err := config.Parse("test", config.YAML, []byte(yaml), msg, config.RejectUnknown); err != nil {
		tb.Fatal(err)
	}
}

func (r *rig) add(yaml string) *cluster.Cluster {
	r.t.Helper()
	msg := parse(r.t, yaml)
	if err := r.AddStatic(msg); err != nil {
		r.t.Fatal(err)
	}
	return r.Get(msg.GetName())
}

// dynamic applies a cluster as CDS does.
func (r *rig) dynamic(yaml string) bool {
	r.t.Helper()
	conf, err := cluster.Compile(parse(r.t, yaml), r.Env())
	if err != nil {
		r.t.Fatal(err)
	}
	return r.Apply(conf, true, "1")
}

// stat returns a counter's or gauge's value; -1 if it is not listed.
func (r *rig) stat(name string) int64 {
	value := int64(-1)
	r.store.Each(false, func(s *stats.Sample) {
		if string(s.Name) != name {
			return
		}
		if value = s.Gauge(); s.Kind == stats.KindCounter {
			value = int64(s.Counter())
		}
	})
	return value
}

func (r *rig) wait(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("no %s in time", what)
		}
		time.Sleep(100 * time.Microsecond) // polled: counters have no event
	}
}

// subscriber records subscriptions and lets the test answer them.
type subscriber struct {
	mu   sync.Mutex
	subs []*subscription
}

type subscription struct {
	source.Spec
	closed bool
	mu     *sync.Mutex
}

func (s *subscriber) Subscribe(spec source.Spec) source.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := &subscription{Spec: spec, mu: &s.mu}
	s.subs = append(s.subs, sub)
	return sub
}

func (s *subscription) SetNames([]string) {}
func (s *subscription) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *subscriber) open() (out []*subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subs {
		if !sub.closed {
			out = append(out, sub)
		}
	}
	return out
}

func (s *subscriber) last() *subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subs[len(s.subs)-1]
}

// answer gives a resource to a subscription and returns what it says.
func (s *subscription) answer(name string, msg proto.Message) (err error) {
	res := &source.Resource{Name: name, Version: "7", TypeURL: s.TypeURL}
	s.Watcher.Apply(&source.Update{Version: "7", Resources: []*source.Delivery{
		source.NewDelivery(res, msg, func(e error) { err = e }),
	}})
	return err
}

func removed(names ...string) *source.Update { return &source.Update{Removed: names} }

func assignment(tb testing.TB, yaml string) *endpointv3.ClusterLoadAssignment {
	tb.Helper()
	msg := &endpointv3.ClusterLoadAssignment{}
	unmarshal(tb, yaml, msg)
	return msg
}

// fakeDNS answers from a table.
type fakeDNS struct {
	mu    sync.Mutex
	names map[string]discover.Answer
	err   error
	asked int
	gate  chan struct{}
}

func (d *fakeDNS) Lookup(_ context.Context, name string, _ discover.Family) (discover.Answer, error) {
	if d.gate != nil {
		<-d.gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	return d.names[name], d.err
}

func (d *fakeDNS) set(name string, a discover.Answer, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name], d.err = a, err
}

// user is a stream.
type user struct {
	m       stream.Monitor
	attempt cluster.Attempt
	enc     stream.Encoder
	events  chan stream.Event
}

func newUser() *user { return &user{events: make(chan stream.Event, 8)} }

func (u *user) Receive(t *stream.Turn, e *stream.Event) {
	if f, ok := e.Ref.(func(*stream.Turn)); ok && e.Kind == stream.EventCall {
		f(t)
		return
	}
	u.events <- *e
}

func (u *user) target() stream.Target { return stream.Target{M: &u.m, To: u, Gen: u.m.Gen()} }

func (u *user) in(f func(t *stream.Turn)) {
	done := make(chan struct{})
	stream.Do(func(t *stream.Turn) {
		u.target().Post(t, stream.Event{Kind: stream.EventCall, Ref: func(t *stream.Turn) {
			f(t)
			close(done)
		}})
	})
	<-done
}

// get begins a stream on c, and waits for it.
func (u *user) get(tb testing.TB, c *cluster.Cluster, ctx cluster.Context) (enc stream.Encoder, f *stream.Fault) {
	tb.Helper()
	defer func() { u.enc = enc }()
	u.in(func(t *stream.Turn) { enc, f = c.NewStream(t, &ctx, u.target(), &u.attempt) })
	if enc != nil || f != nil {
		return enc, f
	}
	select {
	case e := <-u.events:
		if e.Kind == stream.EventFailed {
			return nil, e.Fault
		}
		u.in(func(t *stream.Turn) { enc, f = u.attempt.Open(t) })
	case <-time.After(10 * time.Second):
		tb.Fatal("no event")
	}
	return enc, f
}
