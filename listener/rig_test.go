package listener

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/wire"
	"sidecar/listener/filters/listener/httpinspector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a terminal filter that says its name first and then repeats what it reads, until the client
// ends or the filter chain drains and a byte comes.
type echo struct {
	name    string
	gate    chan struct{} // Warm waits for it, if not nil
	fail    error
	retired atomic.Int32
	rig     *rig
}

func (e *echo) Serve(t *stream.Turn, c *wire.Conn, info *stream.ConnInfo, d filter.Drainer) {
	if e.name == "panic" {
		panic("on purpose")
	}
	e.rig.note(info)
	c.Write(t, []byte(e.name+"\n"))
	t.End()
	for {
		b, n, err := c.Read(4096, func() bool { return true })
		if err != nil {
			return
		}
		c.Write(t, b.B[:n])
		b.Put()
		t.End()
		if d.Draining(0) {
			c.CloseAfterFlush()
			return
		}
	}
}

func (e *echo) Warm(ctx context.Context) error {
	if e.gate == nil {
		return e.fail
	}
	select {
	case <-e.gate:
		return e.fail
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *echo) Retire() { e.retired.Add(1) }

// restorer is an original_dst filter that finds what the test says.
type restorer struct{ rig *rig }

func (f restorer) OnAccept(_ net.Conn, info *stream.ConnInfo) bool {
	if a := f.rig.original.Load(); a != nil {
		info.Local, info.LocalRestored = *a, true
	}
	return false
}

func (f restorer) Inspect([]byte, *stream.ConnInfo) (int, filter.Verdict) { return 0, filter.Next }

type limits struct {
	most   atomic.Int64
	reject atomic.Bool
}

func (l *limits) MaxConnections() int64   { return l.most.Load() }
func (l *limits) RejectConnections() bool { return l.reject.Load() }

type lines chan stream.Info

func (l lines) Log(i *stream.Info) { l <- *i }

// rig is a manager whose network filter is echo, configured by a StringValue.
type rig struct {
	*Manager
	t        testing.TB
	env      *Env
	drain    *Draining
	store    *stats.Store
	limits   limits
	logs     lines
	original atomic.Pointer[stream.Addr]
	runtime  atomic.Uint64
	gate     chan struct{}
	fail     error

	mu    sync.Mutex // guards below
	made  []*echo
	infos []stream.ConnInfo
}

func newRig(t testing.TB, p DrainPolicy) *rig {
	t.Helper()
	r := &rig{t: t, store: stats.New(), logs: make(lines, 100), drain: NewDraining(p)}
	inspector := httpinspector.Entry()
	r.env = &Env{
		Scope: r.store.Root(), Log: slog.New(slog.DiscardHandler),
		Network: map[string]*filter.NetworkEntry{"google.protobuf.StringValue": {
			Name: "echo", Config: &wrapperspb.StringValue{},
			Compile: func(m proto.Message, _ filter.NetworkContext) (any, error) { return r.echo(m) },
		}},
		ListenerFilters: map[string]filter.ListenerEntry{
			originalDst: {Config: &wrapperspb.BoolValue{}, Compile: func(proto.Message, filter.ListenerContext) (filter.ListenerFilter, error) {
				return restorer{r}, nil
			}},
			string(proto.MessageName(&httpinspectorv3.HttpInspector{})): inspector,
		},
		AccessLogs: func(_ *config.Path, list []*accesslogv3.AccessLog, _ *config.Errors) []AccessLog {
			if len(list) == 0 {
				return nil
			}
			return []AccessLog{r.logs}
		},
		Runtime: func(key string) (uint64, bool) {
			n := r.runtime.Load()
			return n, n > 0 && key == "envoy.resource_limits.listener.l.connection_limit"
		},
	}
	r.Manager = NewManager(r.env, r.drain, &r.limits)
	r.Start()
	t.Cleanup(r.Close)
	return r
}

func (r *rig) echo(m proto.Message) (any, error) {
	name := m.(*wrapperspb.StringValue).GetValue()
	if name == "bad" {
		return nil, fmt.Errorf("bad name")
	}
	e := &echo{name: name, rig: r, gate: r.gate, fail: r.fail}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made = append(r.made, e)
	return e, nil
}

func (r *rig) note(info *stream.ConnInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.infos = append(r.infos, *info)
}

func (r *rig) lastInfo() stream.ConnInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.infos[len(r.infos)-1]
}

// retired lists the names of filters that were retired, each as often as it was.
func (r *rig) retired() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.made {
		for range e.retired.Load() {
			out = append(out, e.name)
		}
	}
	return out
}

// chains writes filter chains: "name" or "name match-in-JSON".
func chains(list ...string) string {
	var out []string
	for _, s := range list {
		name, match, ok := strings.Cut(s, " ")
		if !ok {
			match = "{}"
		}
		out = append(out, fmt.Sprintf(`{"name":%q,"filter_chain_match":%s,"filters":[{"name":"echo","typed_config":
			{"@type":"type.googleapis.com/google.protobuf.StringValue","value":%q}}]}`, name, match, name))
	}
	return `"filter_chains":[` + strings.Join(out, ",") + `]`
}

const loopback = `"address":{"socket_address":{"address":"127.0.0.1","port_value":0}}`

func parse(t testing.TB, name string, parts ...string) *listenerv3.Listener {
	t.Helper()
	l := &listenerv3.Listener{}
	text := `{"name":"` + name + `",` + strings.Join(parts, ",") + `}`
	if err := protojson.Unmarshal([]byte(text), l); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return l
}

// try applies a listener and returns what its Started got, and a channel that its Ready closes.
func (r *rig) try(name string, parts ...string) (error, <-chan struct{}) { //nolint:staticcheck // in the order they come
	r.t.Helper()
	started, ready := make(chan error, 1), make(chan struct{})
	r.Apply(parse(r.t, name, parts...), "v", false, Outcome{
		Started: func(err error) { started <- err }, Ready: func() { close(ready) },
	})
	return <-started, ready
}

// apply applies a listener that must be accepted, and waits until it is in force.
func (r *rig) apply(name string, parts ...string) {
	r.t.Helper()
	err, ready := r.try(name, parts...)
	if err != nil {
		r.t.Fatal(err)
	}
	<-ready
}

// addr returns where a listener is bound.
func (r *rig) addr(name string) string {
	r.t.Helper()
	for _, s := range r.Snapshot() {
		if s.Name == name && len(s.Bound) > 0 {
			return s.Bound[0].String()
		}
	}
	r.t.Fatalf("%s is not bound", name)
	return ""
}

func (r *rig) dial(name string) net.Conn {
	r.t.Helper()
	return dial(r.t, "tcp", r.addr(name))
}

func dial(t testing.TB, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // a hang is a failure
	return c
}

// hello reads which chain serves the connection.
func hello(t testing.TB, c net.Conn) string {
	t.Helper()
	var name []byte
	for {
		var b [1]byte
		if _, err := c.Read(b[:]); err != nil {
			return "error: " + err.Error()
		}
		if b[0] == '\n' {
			return string(name)
		}
		name = append(name, b[0])
	}
}

// alive tells whether the connection echoes.
func alive(c net.Conn) bool {
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	var b [1]byte
	_, err := io.ReadFull(c, b[:])
	return err == nil && b[0] == 'x'
}

// stat returns a counter's or gauge's value, -1 if it isn't listed.
func (r *rig) stat(name string) int64 {
	n := int64(-1)
	r.store.Each(false, func(s *stats.Sample) {
		if string(s.Name) == name {
			if n = s.Gauge(); s.Kind == stats.KindCounter {
				n = int64(s.Counter())
			}
		}
	})
	return n
}

// wait polls, since stats have no event.
func (r *rig) wait(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("no %s in time", what)
		}
	}
}

func (r *rig) waitStat(name string, want int64) {
	r.t.Helper()
	r.wait(fmt.Sprintf("%s = %d (it is %d)", name, want, r.stat(name)), func() bool { return r.stat(name) == want })
}

// line waits for the next line of the listener's access log.
func (r *rig) line() stream.Info {
	r.t.Helper()
	select {
	case l := <-r.logs:
		return l
	case <-time.After(20 * time.Second):
		r.t.Fatal("no log line")
		return stream.Info{}
	}
}
