package wasmhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/internal/engine"
)

// root is the plugin's root context: no maps, no bodies, and nothing to reply to.
type root struct{ vm *VM }

func (*root) Headers(abi.MapType) (*header.Map, abi.Status) { return nil, abi.OK }
func (*root) MutableHeaders(abi.MapType) *header.Map        { return nil }
func (*root) HeadersChanged(abi.MapType)                    {}
func (*root) Buffer(abi.BufferType) (abi.Body, abi.Status)  { return abi.Body{}, abi.OK }
func (r *root) ClearRouteCache()                            { r.noStream("clear_route_cache") }
func (r *root) SendLocalResponse(abi.LocalResponse)         { r.noStream("proxy_send_local_response") }

func (r *root) Continue(abi.StreamType) abi.Status {
	r.noStream("proxy_continue_stream")
	return abi.OK
}

func (r *root) Close(abi.StreamType) abi.Status {
	r.noStream("proxy_close_stream")
	return abi.OK
}

func (r *root) noStream(call string) {
	r.vm.NoEffect(call, "the root context has no stream, and no other is in effect (proxy_set_effective_context)")
}

func (r *root) AppendProperty(b []byte, p string) ([]byte, abi.Status) {
	return r.vm.plugin.AppendProperty(b, nil, nil, p)
}

func (r *root) Resolve(p string) (any, bool) { return r.vm.plugin.Resolve(nil, nil, p) }

func (*root) SetProperty(string, []byte, abi.Declared) abi.Status { return abi.NotFound }
func (*root) SetFilterState(string, []byte) abi.Status            { return abi.NotFound }

// Levels of slog for those of plugins that it lacks.
const (
	levelTrace    = slog.LevelDebug - 4
	levelCritical = slog.LevelError + 4
)

// levels are those of slog, by the guest's.
var levels = [...]slog.Level{
	levelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError, levelCritical,
}

// Log writes a plugin's line as Envoy does: "wasm log NAME ROOT_ID VM_ID: message".
func (v *VM) Log(level abi.LogLevel, message string) {
	ok, dropped := v.plugin.lines.take(time.Now())
	if !ok {
		v.plugin.stats.dropped.Inc()
		return
	}
	if dropped > 0 {
		v.plugin.host.opts.Log.Warn("wasm: lines were dropped", "plugin", v.plugin.config.Name, "lines", dropped)
	}
	c := v.plugin.config
	var b strings.Builder
	b.WriteString("wasm log")
	for _, s := range []string{c.Name, c.RootID, c.VMID} {
		if s != "" {
			b.WriteByte(' ')
			b.WriteString(s)
		}
	}
	b.WriteString(": ")
	b.WriteString(message)
	v.plugin.host.opts.Log.Log(context.Background(), levels[level], b.String()) //nolint:forbidigo // guests have none
}

// LogLevel is the least level that the logger takes.
func (v *VM) LogLevel() abi.LogLevel {
	for i, l := range levels {
		if v.plugin.host.opts.Log.Enabled(context.Background(), l) { //nolint:forbidigo // guests have none
			return abi.LogLevel(i)
		}
	}
	return abi.LogCritical
}

func (v *VM) warn(message string) { v.Log(abi.LogWarn, message) }

// SetTick sets the period of on_tick.
// From a clone, it is that of the template.
func (v *VM) SetTick(period time.Duration) {
	if !v.isClone {
		v.tick, v.newTick = period, true
		return
	}
	v.Defer(func(t *stream.Turn) {
		if root := v.plugin.template(); root != nil {
			root.Do(t, "tick period", func() error {
				root.SetTick(period)
				return nil
			})
		}
	})
}

// Done ends the wait of a root whose on_done said false.
func (v *VM) Done() bool {
	if !v.ending {
		return false
	}
	v.Defer(func(t *stream.Turn) { v.end(t) })
	return true
}

// Environ is the plugin's environment.
func (v *VM) Environ() []string { return v.plugin.config.environ }

// Shared is what plugins share.
func (v *VM) Shared() *abi.Shared { return v.plugin.host.shared }

// VMID is the plugin's name space there.
func (v *VM) VMID() string { return v.plugin.config.VMID }

// Stats is where the plugin's own metrics go.
func (v *VM) Stats() *stats.Scope { return v.plugin.custom }

// QueueReady tells the guest of data in a queue, on another goroutine: the caller is inside some VM.
func (v *VM) QueueReady(token uint32) {
	if v.ready.Add(1) > maxReady {
		v.ready.Add(-1)
		v.plugin.stats.overloads.Inc()
		return
	}
	task.Go("wasm queue", func() {
		root := v
		if v.isClone {
			if root = v.plugin.template(); root == nil {
				return
			}
		}
		stream.Do(func(t *stream.Turn) {
			defer v.ready.Add(-1)
			root.Do(t, "on_queue_ready", func() error { return root.abi.QueueReady(&root.root, rootContext, token) })
		})
	}, v.plugin.host.panicked)
}

// ErrNoCluster is what a Caller says of a cluster that doesn't exist.
var ErrNoCluster = errors.New("unknown cluster")

// callout is a request that is on its way.
type callout struct {
	// Set before the call is known to anybody else.
	vm     *VM
	stream *Stream // that made it; nil for the root
	token  uint32
	size   int // what it holds

	// Guarded by VM.mu.
	cancel                               func(*stream.Turn)
	grpc                                 GRPCStream
	reply                                []byte // of a gRPC call
	localClosed, remoteClosed, cancelled bool
}

// abandon cancels on a goroutine of its own, as the canceller may be inside anything.
func (c *callout) abandon() {
	if c.cancel != nil {
		task.Go("wasm call-out end", func() { stream.Do(c.cancel) }, c.vm.plugin.host.panicked)
	}
}

// outcome is what proxy_get_status tells.
type outcome struct {
	code    uint32
	message string
}

// Outcome is that of the last call-out.
func (v *VM) Outcome() (code uint32, message string) { return v.outcome.code, v.outcome.message }

// HasCluster tells whether a call-out to the cluster could be made.
func (v *VM) HasCluster(name string) bool {
	calls := v.plugin.host.opts.Calls
	return calls != nil && calls.HasCluster(name)
}

// HTTPCall starts a call-out. The VM's owner is inside the guest.
func (v *VM) HTTPCall(c abi.HTTPCall) (uint32, abi.Status) {
	if !v.HasCluster(c.Cluster) {
		return 0, abi.BadArgument
	}
	if v.turn == nil { // In the wasm start section.
		return 0, abi.InternalFailure
	}
	r := &CallRequest{Cluster: c.Cluster, Headers: mapOf(c.Headers), Body: c.Body, Timeout: c.Timeout}
	if len(c.Body) > 0 {
		r.Headers.Set("content-length", strconv.Itoa(len(c.Body)))
	}
	if len(c.Trailers) > 0 {
		r.Trailers = mapOf(c.Trailers)
	}
	size := len(c.Body)
	for _, list := range [][][2]string{c.Headers, c.Trailers} {
		for _, p := range list {
			size += len(p[0]) + len(p[1]) + 64
		}
	}
	out, parent, err := v.newCall(c.From, httpToken, size)
	if err != nil {
		return 0, abi.InternalFailure
	}
	r.Parent = parent
	token := out.token
	cancel, err := v.plugin.host.opts.Calls.CallHTTP(v.turn, r, func(t *stream.Turn, res CallResult) {
		v.answered(t, token, res)
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.dropCall(out)
		if errors.Is(err, ErrNoCluster) {
			return 0, abi.BadArgument
		}
		return 0, abi.InternalFailure
	}
	out.cancel = cancel
	return token, abi.OK
}

func mapOf(pairs [][2]string) *header.Map {
	m := new(header.Map)
	for _, p := range pairs {
		m.Add(p[0], p[1])
	}
	return m
}

// answered brings an answer to the stream that asked, or to the root when there is none.
func (v *VM) answered(t *stream.Turn, token uint32, r CallResult) {
	v.mu.Lock()
	c, ok := v.calls[token]
	if ok {
		v.dropCall(c)
	}
	v.mu.Unlock()
	if !ok {
		return // The VM has failed.
	}
	a := answer{token: token, result: r}
	if c.stream == nil || !c.stream.deliver(t, a) {
		v.answerRoot(t, a)
	}
}

// answerRoot runs the callback on the root. What waits is bounded by the number of call-outs, and by
// what a GRPCStream lets come.
func (v *VM) answerRoot(t *stream.Turn, a answer) {
	v.must(t, func() error { return v.answer(&v.root, a) })
}

// answer runs the callback in a context.
func (v *VM) answer(c abi.Context, a answer) error {
	if a.grpc != nil {
		return v.answerGRPC(c, a)
	}
	r := abi.NewCallResponse(a.result.Headers, a.result.Trailers, a.result.Body)
	v.outcome = outcome{}
	if a.result.Headers == nil {
		v.outcome = outcome{uint32(abi.BrokenConnection), "reset"}
	}
	err := v.abi.HTTPCallResponse(c, rootContext, a.token, r)
	v.outcome = outcome{}
	return err
}

type answer struct {
	token  uint32
	result CallResult
	call   *callout   // of a gRPC call-out
	grpc   *GRPCEvent // nil: result
}

// callbackOf is the export in which a guest failed.
func callbackOf(err error) string {
	if trap, ok := errors.AsType[*engine.Trap](err); ok {
		return trap.Function
	}
	return ""
}

// requestID is that of the stream in whose callback the guest failed; empty for the root's.
func (v *VM) requestID() string {
	o, ok := v.abi.FailedIn.(Owner)
	if !ok || o.Info() == nil {
		return ""
	}
	i := o.Info()
	if i.RequestID == "" && i.Request != nil {
		return strings.Clone(i.Request.Value(header.XRequestID))
	}
	return strings.Clone(i.RequestID)
}

// trace is the guest's stack at a trap, for the log.
func trace(err error) string {
	var trap *engine.Trap
	if !errors.As(err, &trap) {
		return ""
	}
	if p, ok := errors.AsType[*engine.PanicError](err); ok {
		return fmt.Sprintf("%s\n%s", trap.Message, p.Stack)
	}
	text, _, _ := strings.Cut(trap.Message, "\n\nStack backtrace:") // of the engine's own code
	return text
}
