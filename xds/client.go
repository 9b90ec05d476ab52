package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/api/stats"
	"sidecar/internal/config/source"
	"sidecar/internal/task"
	"sidecar/xds/transport"
)

// Config is what a Client needs of the process.
type Config struct {
	// Node is sent to management servers; see Node.
	Node *corev3.Node
	// ADS is the bootstrap's ads_config; nil when there is none.
	ADS *source.GRPC
	// Dialer connects to management servers that are clusters.
	Dialer transport.Dialer
	// Stats is the root scope; streams count below control_plane in it.
	Stats *stats.Scope
	Log   *slog.Logger
	// RejectUnknownFields rejects resources with fields that this binary doesn't know
	// (--reject-unknown-dynamic-fields); else they are logged and counted.
	RejectUnknownFields bool
	// UnknownField counts unknown fields (server.dynamic_unknown_fields); nil counts nowhere.
	UnknownField *stats.Counter
}

// Client fetches dynamic configuration. It implements source.Subscriber.
//
// All of its state belongs to one goroutine, on which the watchers are called too.
type Client struct {
	// Set by New, never changed.
	cfg   Config
	ctx   context.Context //nolint:containedctx // the life of the client's goroutines
	stop  context.CancelFunc
	ended chan struct{}

	// Owned by the client's goroutine.
	ads     *mux
	muxes   map[string]*mux // with one server or one type, by key
	files   map[string]*fileFeed
	watcher *transport.Files
	dirty   []*mux
	retired []*transport.Stream // closed, perhaps not ended
	serial  uint64

	mu      sync.Mutex // guards below
	queue   []func()
	started bool
	closed  bool
	wake    chan struct{} // holds one token when the queue is not empty
}

// New makes a client; Start lets it run. Subscriptions may be made before that.
func New(cfg Config) *Client {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background()) //nolint:forbidigo // the life of the client, which Close ends
	return &Client{
		cfg: cfg, ctx: ctx, stop: stop, ended: make(chan struct{}), wake: make(chan struct{}, 1),
		muxes: map[string]*mux{}, files: map[string]*fileFeed{},
	}
}

// Start starts the client's goroutine. The first subscription to a server connects to it.
func (c *Client) Start() {
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	c.loop()
}

// loop runs the goroutine, again if a watcher panics: the other resources must go on.
func (c *Client) loop() {
	task.Go("xds: client", func() {
		c.run()
		c.shutdown()
		close(c.ended)
	}, func(p *task.Panic) {
		c.cfg.Log.Error("xds: a watcher panicked", "panic", p.Error())
		c.loop()
	})
}

// Close ends all subscriptions and streams and waits for their goroutines. Watchers are not called
// after it. It must not be called by a Watcher.
func (c *Client) Close() {
	c.mu.Lock()
	started := c.started
	c.closed = true
	c.mu.Unlock()
	c.stop()
	if started {
		<-c.ended
	}
}

// Subscribe implements source.Subscriber.
func (c *Client) Subscribe(spec source.Spec) source.Subscription {
	s := &subscription{c: c, spec: spec, wildcard: spec.Names == nil, names: uniq(spec.Names)}
	c.post(s.start)
	return handle{s}
}

// post queues f for the client's goroutine. It may be called from any goroutine and doesn't block.
func (c *Client) post(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.queue = append(c.queue, f)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// after runs f on the client's goroutine in d, unless the timer is stopped before.
func (c *Client) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { c.post(f) })
}

func (c *Client) take() func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.queue = nil // a big push leaves no big queue
		return nil
	}
	f := c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	return f
}

func (c *Client) run() {
	for c.ctx.Err() == nil {
		if f := c.take(); f != nil {
			f()
			continue
		}
		// Requests are sent when nothing is left to do: thousands of endpoint subscriptions that a
		// push of clusters has made are one request.
		c.flush()
		select {
		case <-c.wake:
		case <-c.ctx.Done():
		}
	}
}

func (c *Client) flush() {
	dirty := c.dirty
	c.dirty = nil
	for _, m := range dirty {
		m.flush()
	}
}

func (c *Client) shutdown() {
	if c.watcher != nil {
		c.watcher.Close()
	}
	for _, m := range c.allMuxes() {
		m.stream.Close()
	}
	for _, m := range c.allMuxes() {
		m.stream.Wait()
	}
	for _, s := range c.retired {
		s.Wait()
	}
}

func (c *Client) allMuxes() []*mux {
	var out []*mux
	if c.ads != nil {
		out = append(out, c.ads)
	}
	for _, m := range c.muxes {
		out = append(out, m)
	}
	return out
}

// feedFor finds or opens the feed of a source's resources of one type.
func (c *Client) feedFor(spec *source.Spec) (*feed, error) {
	src, url := spec.Source, spec.TypeURL
	if src == nil {
		return nil, errors.New("no config source")
	}
	k := kindOf(url)
	switch src.Kind {
	case source.KindADS:
		if c.cfg.ADS == nil {
			return nil, errors.New("ads: the bootstrap has no ads_config")
		}
		if c.ads == nil {
			c.ads = c.open("", c.cfg.ADS, adsMethod(c.cfg.ADS.Delta), c.adsStats())
		}
		return c.ads.feed(k), nil
	case source.KindFile:
		return c.fileFeed(src, k)
	case source.KindGRPC:
		return c.typeFeed(spec, k)
	case source.KindUnset:
	}
	return nil, fmt.Errorf("config source of unknown kind %d", src.Kind)
}

func (c *Client) adsStats() *source.ControlPlaneStats {
	if c.cfg.Stats == nil {
		return nil
	}
	return stats.Bind[source.ControlPlaneStats](c.cfg.Stats.Sub("control_plane"))
}

// typeFeed opens a stream of the type's own service. Subscriptions with equal configs share it.
//
// DIVERGES(xds-shared-streams): Envoy opens a stream for each subscription, which is thousands for
// the endpoints of a mesh. Secrets have one each here too.
func (c *Client) typeFeed(spec *source.Spec, k kind) (*feed, error) {
	src := spec.Source
	method := k.method(src.GRPC.Delta)
	if method == "" {
		return nil, fmt.Errorf("%s has no discovery service", k.url)
	}
	key := method + "\x00" + src.Key
	if k.alone {
		c.serial++
		key = fmt.Sprintf("%s\x00%d", key, c.serial)
	}
	m := c.muxes[key]
	if m == nil {
		m = c.open(key, src.GRPC, method, spec.ControlPlane)
		c.muxes[key] = m
	}
	m.joined(spec.ControlPlane)
	return m.feed(k), nil
}

// closeMux closes a stream that nobody needs any more. The wait for its goroutine is left to that.
func (c *Client) closeMux(m *mux) {
	m.stream.Close()
	c.retired = append(slices.DeleteFunc(c.retired, (*transport.Stream).Ended), m.stream)
	delete(c.muxes, m.key)
	c.dirty = slices.DeleteFunc(c.dirty, func(d *mux) bool { return d == m })
}

// unknownField handles a field that this binary doesn't know.
func (c *Client) unknownField(name, what string) error {
	if c.cfg.RejectUnknownFields {
		if c.cfg.UnknownField != nil {
			c.cfg.UnknownField.Inc()
		}
		return errors.New(what)
	}
	c.warnUnknown(name, what)
	return nil
}

// warnUnknown counts a field that was left out.
func (c *Client) warnUnknown(name, what string) {
	if c.cfg.UnknownField != nil {
		c.cfg.UnknownField.Inc()
	}
	c.cfg.Log.Warn("xds: unknown field", "name", name, "detail", what)
}
