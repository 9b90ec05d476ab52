package listener

import (
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

const inspectHTTP = `"listener_filters":[{"name":"http","typed_config":
	{"@type":"type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}]`

func TestInspect(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	two := chains(`http {"application_protocols":["http/1.1"]}`, "other")
	r.apply("l", loopback, `"stat_prefix":"s"`, inspectHTTP, two)
	c := r.dial("l")
	for _, part := range []string{"GE", "T / HTTP/1.1\r", "\n"} {
		_, _ = c.Write([]byte(part))
	}
	if got := hello(t, c); got != "http" {
		t.Errorf("served by %q", got)
	}
	if got := make([]byte, 16); readFull(c, got) != nil || string(got) != "GET / HTTP/1.1\r\n" {
		t.Errorf("the filter took from the socket: the chain got %q", got)
	}
	c = r.dial("l")
	_, _ = c.Write([]byte("\x00\x01"))
	if got := hello(t, c); got != "other" {
		t.Errorf("served by %q", got)
	}
	// A client that ends before there is a verdict.
	for _, part := range []string{"", "GET /"} {
		c = r.dial("l")
		_, _ = c.Write([]byte(part))
		_ = c.(*net.TCPConn).CloseWrite()
		if got := hello(t, c); !strings.HasPrefix(got, "error") {
			t.Errorf("served by %q after %q and the end", got, part)
		}
	}
	r.waitStat("listener.s.downstream_listener_filter_remote_close", 2)
	c = r.dial("l")
	r.waitStat("listener.s.downstream_pre_cx_active", 1)
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	r.waitStat("listener.s.downstream_listener_filter_error", 1)
	r.waitStat("listener.s.downstream_pre_cx_active", 0)
}

func readFull(c net.Conn, p []byte) error {
	for n := 0; n < len(p); {
		m, err := c.Read(p[n:])
		if err != nil {
			return err
		}
		n += m
	}
	return nil
}

func TestInspect_Timeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	two := chains(`http {"application_protocols":["http/1.1"]}`, "other")
	r.apply("l", loopback, `"stat_prefix":"s"`, `"access_log":[{}]`, inspectHTTP, `"listener_filters_timeout":"0.05s"`, two)
	if got := hello(t, r.dial("l")); !strings.HasPrefix(got, "error") {
		t.Errorf("served by %q", got)
	}
	if l := r.line(); l.Flags != 0 || l.Conn.Chain != "" {
		t.Errorf("record %+v", l)
	}
	r.apply("l", loopback, `"stat_prefix":"s"`, inspectHTTP, `"listener_filters_timeout":"0.05s"`,
		`"continue_on_listener_filters_timeout":true`, two)
	c := r.dial("l")
	if got := hello(t, c); got != "other" || !alive(c) {
		t.Errorf("served by %q", got)
	}
	r.waitStat("listener.s.downstream_pre_cx_timeout", 2)
}

func TestInspect_Disabled(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	off := strings.TrimSuffix(inspectHTTP, "}]") + `,"filter_disabled":{"any_match":true}}]`
	r.apply("l", loopback, off, chains(`http {"application_protocols":["http/1.1"]}`, "other"))
	if got := hello(t, r.dial("l")); got != "other" {
		t.Errorf("served by %q; a filter that is switched off waits for bytes", got)
	}
}

// greedy asks for more for ever, or rejects at once.
type greedy struct{ v filter.Verdict }

func (greedy) OnAccept(net.Conn, *stream.ConnInfo) bool                 { return true }
func (g greedy) Inspect([]byte, *stream.ConnInfo) (int, filter.Verdict) { return 0, g.v }

func TestShow_IsBounded(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for v, want := range map[filter.Verdict]error{filter.More: errRejected, filter.Reject: errRejected, filter.Next: nil} {
		peer := dial(t, "tcp", ln.Addr().String())
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go peer.Write(make([]byte, 1<<20)) //nolint:errcheck // ends with the connection
		if err := show(nc, greedy{v}, nil); !errors.Is(err, want) {
			t.Errorf("verdict %d: %v, want %v", v, err, want)
		}
		_ = nc.Close()
		_ = peer.Close()
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := show(a, greedy{}, nil); err == nil {
		t.Error("looks into what is no socket")
	}
}

func TestPredicate(t *testing.T) {
	t.Parallel()
	at := func(port string) *stream.ConnInfo {
		return &stream.ConnInfo{Local: addrOf(must(net.ResolveTCPAddr("tcp", "10.0.0.1:"+port)))}
	}
	const ports = `{"destination_port_range":{"start":80,"end":82}}`
	for _, c := range []struct {
		name, in string
		info     *stream.ConnInfo
		want     bool
	}{
		{"in range", ports, at("80"), true},
		{"the end is outside", ports, at("82"), false},
		{"unix socket", ports, &stream.ConnInfo{Local: stream.PipeAddr("/x")}, false},
		{"not", `{"not_match":` + ports + `}`, at("80"), false},
		{"or", `{"or_match":{"rules":[{"destination_port_range":{"start":1,"end":2}},` + ports + `]}}`, at("81"), true},
		{"or, none", `{"or_match":{"rules":[{"destination_port_range":{"start":1,"end":2}},` + ports + `]}}`, at("5"), false},
		{"and", `{"and_match":{"rules":[{"any_match":true},` + ports + `]}}`, at("81"), true},
		{"and, not all", `{"and_match":{"rules":[{"any_match":true},` + ports + `]}}`, at("5"), false},
	} {
		m := &listenerv3.ListenerFilterChainMatchPredicate{}
		if err := protojson.Unmarshal([]byte(c.in), m); err != nil {
			t.Fatal(err)
		}
		var errs config.Errors
		p := compilePredicate(nil, m, &errs)
		if err := errs.Err(); err != nil {
			t.Fatal(err)
		}
		if got := p(c.info); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	var errs config.Errors
	compilePredicate(config.Field("filter_disabled"), &listenerv3.ListenerFilterChainMatchPredicate{}, &errs)
	deep := &listenerv3.ListenerFilterChainMatchPredicate{}
	for range 100 {
		deep = &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: deep}}
	}
	compilePredicate(config.Field("deep"), deep, &errs)
	for _, want := range []string{"filter_disabled: needs one of", "nested too deeply"} {
		if err := errs.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// flaky is a listener that runs out of file descriptors a few times.
type flaky struct {
	net.Listener
	errs chan error
}

func (f *flaky) Accept() (net.Conn, error) {
	select {
	case err := <-f.errs:
		return nil, err
	default:
		return f.Listener.Accept()
	}
}

func TestAccept_RecoversFromErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	r.apply("l", loopback, chains("a"))
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &flaky{inner, make(chan error, 5)}
	for range cap(f.errs) {
		f.errs <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	s := &socket{addr: Address{Network: "tcp"}, ln: f, done: make(chan struct{})}
	r.Manager.mu.Lock()
	s.active.Store(r.live["l"])
	r.Manager.mu.Unlock()
	var wg sync.WaitGroup
	s.start(&wg)
	c := dial(t, "tcp", inner.Addr().String())
	if got := hello(t, c); got != "a" {
		t.Errorf("served by %q", got)
	}
	_ = c.Close()
	s.close()
	wg.Wait()
}

func TestAccept_EndsInThePause(t *testing.T) {
	t.Parallel()
	s := &socket{done: make(chan struct{})}
	paused := make(chan bool)
	go func() { paused <- s.pause(time.Hour) }()
	close(s.done)
	if <-paused {
		t.Error("a closed socket goes on to accept")
	}
}

// TestManyConnections: nothing is left of them.
func TestManyConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 10,000 connections")
	}
	r := newRig(t, DrainPolicy{})
	r.apply("l", loopback, `"stat_prefix":"s"`, inspectHTTP, chains("a"))
	const total, workers = 10_000, 8
	fds := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc here")
		}
		return len(list)
	}
	before := fds()
	var wg sync.WaitGroup
	addr := r.addr("l")
	for range workers {
		wg.Go(func() {
			for range total / workers {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				_, _ = c.Write([]byte("\x00"))
				var b [2]byte
				if err := readFull(c, b[:]); err != nil || string(b[:]) != "a\n" {
					t.Errorf("read %q, %v", b, err)
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	r.waitStat("listener.s.downstream_cx_destroy", total)
	r.wait("connections to end", func() bool { return r.Connections() == 0 })
	if n := fds(); n > before+5 {
		t.Errorf("%d file descriptors, %d before", n, before)
	}
}
