package wasmhost

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/attribute"
	"sidecar/wasmhost/code"
	"sidecar/wasmhost/code/cache"
	"sidecar/wasmhost/code/fetch"
	"sidecar/wasmhost/internal/engine"
	"sidecar/wasmhost/wasi"
)

// Options of a Host.
type Options struct {
	Log   *slog.Logger
	Stats *stats.Store
	// Calls makes plugins' call-outs; nil refuses them all, as to unknown clusters.
	Calls Caller
	// GRPC makes their gRPC call-outs, Resolver looks up names for them; nil refuses all.
	GRPC     GRPCCaller
	Resolver Resolver
	// Node is the proxy's identity, for attributes; Endpoints counts the hosts of a cluster.
	Node      *corev3.Node
	Endpoints func(cluster string) (int, bool)
	// Concurrency is the most VMs that one plugin has. 0 is GOMAXPROCS.
	Concurrency int
	// Limits of plugins that set none of their own; the zero value is DefaultLimits.
	Limits Limits
	// QueueLimit is how many streams and jobs may wait for one VM. 0 is 4096.
	QueueLimit int
	// SharedBytes bounds the shared data and queues of one VM id. 0 is 64 MiB.
	SharedBytes int
	// Observer is shown what every guest does; nil is none. It is for tools.
	Observer abi.Observer

	// Compiler is the command that compiles a module in a process of its own, as CompileChild does: the
	// module at its input, compiled code to file 3. Arguments are added. Without one this process
	// compiles.
	Compiler []string
	// CacheDir is where modules that were fetched and compiled code are kept, CacheBytes how much of
	// them, 1 GiB by default. Without one nothing is.
	CacheDir   string
	CacheBytes int64
	// InsecureHosts may be asked for code without TLS, or with a certificate that nobody vouches for.
	InsecureHosts []string
}

// Caller makes requests for plugins: what the proxy's upstream half has to offer.
type Caller interface {
	// HasCluster tells whether a cluster of that name exists.
	HasCluster(name string) bool
	// CallHTTP starts a request and returns how to cancel it. done is called once, with no stream
	// entered and not before CallHTTP has returned, unless it was cancelled first. An error means that
	// the request was not started: ErrNoCluster, or that it was refused or answered on the spot.
	CallHTTP(t *stream.Turn, r *CallRequest, done func(*stream.Turn, CallResult)) (cancel func(*stream.Turn), err error)
}

// CallRequest is a request that a plugin makes. The Caller owns it.
type CallRequest struct {
	Cluster  string
	Headers  *header.Map // :method, :path and :authority are there
	Body     []byte
	Trailers *header.Map // nil for none
	Timeout  time.Duration
	// BodyLimit is the largest answer that is taken; 0 leaves it to the Caller.
	BodyLimit int64
	// Parent is the record of the stream that the call is made for: its trace is gone on with. Nil for
	// the root context's calls; used before CallHTTP returns only.
	Parent *stream.Info
}

// CallResult is the answer. It belongs to the plugin. A timeout, a reset and a missing host are 504 and
// 503 answers, made up as Envoy's client does; a nil Headers is for a request that ended with no answer
// for a reason of our own (shutdown).
type CallResult struct {
	Headers, Trailers *header.Map
	Body              []byte
}

// Host runs the plugins of a process. Safe for concurrent use.
type Host struct {
	// Set by NewHost, never changed.
	opts   Options
	engine *engine.Engine
	node   *attribute.Node
	gate   *gate
	shared *abi.Shared
	starts chan struct{} // a place for each guest that starts off the request path
	done   sync.WaitGroup

	ctx      context.Context //nolint:containedctx // of loads, which outlive who began them; ended by Close
	stop     context.CancelFunc
	compiler chan struct{} // the place for the one compiler
	sources  *code.Store
	client   *fetch.Client
	cache    *cache.Dir // nil without one
	registry registry

	versions Versions

	mu      sync.Mutex // guards below
	modules map[[sha256.Size]byte]*moduleEntry
	live    map[*VM]struct{} // for the gauges of memory
	closed  bool
}

// NewHost makes a host. Close it after its plugins.
func NewHost(o Options) (*Host, error) {
	if o.Concurrency <= 0 {
		o.Concurrency = runtime.GOMAXPROCS(0)
	}
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	if o.QueueLimit <= 0 {
		o.QueueLimit = 4096
	}
	if o.SharedBytes <= 0 {
		o.SharedBytes = 64 << 20
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = 1 << 30
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Stats == nil {
		o.Stats = stats.New()
	}
	e, err := engine.New(engine.Options{})
	if err != nil {
		return nil, err
	}
	places := max(2, 2*runtime.GOMAXPROCS(0))
	h := &Host{
		opts: o, engine: e, node: attribute.NewNode(o.Node), gate: newGate(places), shared: abi.NewShared(o.SharedBytes),
		starts:  make(chan struct{}, max(1, places/2)),
		modules: map[[sha256.Size]byte]*moduleEntry{}, live: map[*VM]struct{}{},
		compiler: make(chan struct{}, 1),
	}
	h.ctx, h.stop = context.WithCancel(context.Background()) //nolint:forbidigo // where loads begin
	h.openSources()
	return h, nil
}

// Log is where the host logs.
func (h *Host) Log() *slog.Logger { return h.opts.Log }

// Limits are the process's defaults, for Compile.
func (h *Host) Limits() Limits { return h.opts.Limits }

// Close waits until every plugin that was closed has ended, and frees the engine.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.stop()
	h.done.Wait()
	h.closeSources()
	h.engine.Close()
}

// MemoryBytes is the size of all VMs' memories, as of their last callback.
func (h *Host) MemoryBytes() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var n int64
	for v := range h.live {
		n += v.memory.Load()
	}
	return n
}

// VMs is the number of VMs that exist.
func (h *Host) VMs() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.live)
}

// Start makes a running plugin: compile, link, instantiate, start, configure. It blocks for as long as
// that takes, at most the limits' start deadline for each call; ctx is looked at in between. The
// caller closes the Plugin.
func (h *Host) Start(ctx context.Context, c *Config) (*Plugin, error) { return h.open(ctx, c, false) }

// use keeps the host open until h.done.Done; false if it is closed.
func (h *Host) use() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.done.Add(1)
	}
	return !h.closed
}

// open is Start. fresh asks for code again that could not be fetched a moment ago.
func (h *Host) open(ctx context.Context, c *Config, fresh bool) (*Plugin, error) {
	if !h.use() {
		return nil, fmt.Errorf("%s: the host is closed", c)
	}
	p, err := h.start(ctx, c, fresh)
	if err != nil {
		h.done.Done()
		return nil, fmt.Errorf("Unable to create Wasm plugin %s: %w", c.Name, err) //nolint:staticcheck // Envoy's text
	}
	return p, nil
}

func (h *Host) start(ctx context.Context, c *Config, fresh bool) (*Plugin, error) {
	entry, err := h.module(ctx, c, fresh)
	if err != nil {
		return nil, err
	}
	functions := wasi.Functions(func(name string) bool { return c.capabilities == nil || c.capabilities[name] })
	module, err := abi.Link(entry.module, c.capabilities, functions...)
	if err != nil {
		h.release(entry.digest)
		return nil, err
	}
	p := newPlugin(h, c, module, entry.digest)
	h.shared.Use(c.VMID)
	v, err := p.startVM(ctx)
	if err != nil {
		p.free()
		return nil, err
	}
	p.vms = append(p.vms, v)
	p.serves(v)
	h.registry.add(p)
	return p, nil
}

// panicked is told of a goroutine that a panic ended.
func (h *Host) panicked(p *task.Panic) {
	h.opts.Log.Error("wasm: panic", "task", p.Task, "value", p.Value, "stack", string(p.Stack))
}
