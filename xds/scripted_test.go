package xds_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/api/stats"
	"sidecar/internal/config/source"
	"sidecar/xds"
)

// scripted is an aggregated server whose every message the test writes itself. It runs on memory
// connections, so a test may put it, and the client, into a synctest bubble.
type scripted struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	t        *testing.T
	lis      *bufconn.Listener
	client   *xds.Client
	requests chan *discoveryv3.DiscoveryRequest
	deltas   chan *discoveryv3.DeltaDiscoveryRequest
	out      chan proto.Message
}

func newScripted(t *testing.T, delta bool) *scripted {
	t.Helper()
	s := &scripted{
		t: t, lis: bufconn.Listen(1 << 20),
		requests: make(chan *discoveryv3.DiscoveryRequest, 100),
		deltas:   make(chan *discoveryv3.DeltaDiscoveryRequest, 100),
		out:      make(chan proto.Message, 100),
	}
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(s.lis)
	}()
	s.client = newClient(t, dialFunc(func(ctx context.Context, _ string) (net.Conn, error) {
		return s.lis.DialContext(ctx)
	}), delta, stats.New())
	t.Cleanup(func() {
		s.client.Close()
		g.Stop()
		<-done
	})
	return s
}

func (s *scripted) StreamAggregatedResources(
	st discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	asked := make(chan struct{})
	go func() {
		for first := true; ; first = false {
			req, err := st.Recv()
			if err != nil {
				return
			}
			s.requests <- req
			if first {
				close(asked)
			}
		}
	}()
	return s.send(st, asked)
}

func (s *scripted) DeltaAggregatedResources(
	st discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	asked := make(chan struct{})
	go func() {
		for first := true; ; first = false {
			req, err := st.Recv()
			if err != nil {
				return
			}
			s.deltas <- req
			if first {
				close(asked)
			}
		}
	}()
	return s.send(st, asked)
}

// send writes what the test has queued; as every server, not before it was asked for something.
func (s *scripted) send(st grpc.ServerStream, asked <-chan struct{}) error {
	select {
	case <-asked:
	case <-st.Context().Done():
		return nil
	}
	for {
		select {
		case m := <-s.out:
			if m == nil {
				return nil
			}
			if err := st.SendMsg(m); err != nil {
				return err
			}
		case <-st.Context().Done():
			return nil
		}
	}
}

func (s *scripted) subscribe(url string, names ...string) *watcher {
	w := newWatcher()
	s.client.Subscribe(source.Spec{TypeURL: url, Names: names, Source: source.ADS(), Watcher: w})
	return w
}

func anyOf(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s *scripted) push(url, version string, resources ...proto.Message) {
	s.t.Helper()
	resp := &discoveryv3.DiscoveryResponse{TypeUrl: url, VersionInfo: version, Nonce: "n" + version}
	for _, r := range resources {
		a, ok := r.(*anypb.Any)
		if !ok {
			a = anyOf(s.t, r)
		}
		resp.Resources = append(resp.Resources, a)
	}
	s.out <- resp
}

// answer returns the next request that answers a nonce.
func (s *scripted) answer(nonce string) *discoveryv3.DiscoveryRequest {
	s.t.Helper()
	ctx := testContext(s.t)
	for {
		select {
		case r := <-s.requests:
			if r.GetResponseNonce() == nonce {
				return r
			}
		case <-ctx.Done():
			s.t.Fatalf("no request with nonce %q", nonce)
		}
	}
}

func (s *scripted) deltaAnswer(nonce string) *discoveryv3.DeltaDiscoveryRequest {
	s.t.Helper()
	ctx := testContext(s.t)
	for {
		select {
		case r := <-s.deltas:
			if r.GetResponseNonce() == nonce {
				return r
			}
		case <-ctx.Done():
			s.t.Fatalf("no request with nonce %q", nonce)
		}
	}
}

// TestBadResponses sends what no proper server sends: the good resources apply, the NACK names the
// rest, and nothing that can't be read is taken for removed.
func TestBadResponses(t *testing.T) {
	t.Parallel()
	garbage := &anypb.Any{TypeUrl: source.ListenerType, Value: []byte("\x0a\x01b\x12\xff")}
	tests := []struct {
		name     string
		resource proto.Message
		nack     string
		removed  bool
	}{
		{"not decodable, name readable", garbage, "b: ", false},
		{
			"no name at all", &anypb.Any{TypeUrl: source.ListenerType, Value: []byte("\xff")},
			"resources[1]: name:", false,
		},
		{"empty name", listener("", "x"), "resources[1]: name: value length", false},
		{
			"another type", &anypb.Any{TypeUrl: source.ClusterType, Value: []byte("\x0a\x01b")},
			"resources[1]: type URL", false,
		},
		{"twice", listener("a", "other"), "a: duplicate listener a found", true},
		{
			"a bad wrapper", &anypb.Any{
				TypeUrl: "type.googleapis.com/envoy.service.discovery.v3.Resource", Value: []byte("\xff"),
			}, "resources[1]: envoy.service.discovery.v3.Resource", false,
		},
		{"a wrapper with a bad TTL", &discoveryv3.Resource{
			Name: "b", Ttl: seconds(-1), Resource: anyOf(t, listener("b", "1")),
		}, "b: ttl: invalid", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			s := newScripted(t, false)
			w := s.subscribe(source.ListenerType)
			s.push(source.ListenerType, "1", listener("a", "1"), listener("b", "1"))
			w.want(ctx, t, "a=1", "b=1")
			s.push(source.ListenerType, "2", listener("a", "2"), tt.resource)
			if tt.removed {
				w.want(ctx, t, "a=2", "-b")
			} else {
				w.want(ctx, t, "a=2")
			}
			r := s.answer("n2")
			if got := r.GetErrorDetail().GetMessage(); !strings.Contains(got, tt.nack) {
				t.Fatalf("NACK %q, want %q in it", got, tt.nack)
			}
			if r.GetVersionInfo() != "1" {
				t.Fatalf("NACK with version %q, want the last accepted", r.GetVersionInfo())
			}
			s.push(source.ListenerType, "3", listener("a", "2"), listener("b", "1"))
			if r := s.answer("n3"); r.GetErrorDetail() != nil || r.GetVersionInfo() != "3" {
				t.Fatalf("got %v, want an ACK", r)
			}
		})
	}
}

// TestUnknownTypes: an agent on the way adds types of its own to the stream.
func TestUnknownTypes(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		ctx := testContext(t)
		s := newScripted(t, delta)
		w := s.subscribe(source.ListenerType)
		const url = "type.googleapis.com/istio.networking.nds.v1.NameTable"
		if delta {
			s.out <- &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: "x"}
			s.out <- &discoveryv3.DeltaDiscoveryResponse{
				TypeUrl: source.ListenerType, Nonce: "n1", Resources: []*discoveryv3.Resource{
					{Name: "a", Version: "1", Resource: anyOf(t, listener("a", "1"))},
				},
			}
		} else {
			s.push(url, "0", &anypb.Any{TypeUrl: url, Value: []byte("junk")})
			s.push(source.ListenerType, "1", listener("a", "1"))
		}
		w.want(ctx, t, "a=1")
	})
}

// TestReplacedWhileWarming: the answer goes to the newer response, waits for what both brought, and
// repeats errors that the newer one has nothing to say about.
func TestReplacedWhileWarming(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	s := newScripted(t, false)
	w := s.subscribe(source.RouteType, "a", "b", "c")
	s.push(source.RouteType, "1", route("a", "slow-a"), route("b", "bad"), route("c", "slow-c1"))
	w.want(ctx, t, "a=slow-a", "b=bad", "c=slow-c1")
	s.push(source.RouteType, "2", route("c", "slow-c2"))
	w.want(ctx, t, "c=slow-c2")
	w.release("slow-c1", errBroken) // about a version that is history
	w.release("slow-c2", nil)
	w.release("slow-a", errors.New("too old"))
	r := s.answer("n2")
	got := r.GetErrorDetail().GetMessage()
	if !strings.Contains(got, "b: field.path: is bad") || !strings.Contains(got, "a: too old") ||
		strings.Contains(got, "broken") {
		t.Fatalf("NACK %q", got)
	}
	select {
	case r := <-s.requests:
		t.Fatalf("a second answer: %v", r)
	default:
	}
}

// TestDeltaRepliesAreIndependent: each response has its own answer, in whatever order they end.
func TestDeltaRepliesAreIndependent(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	s := newScripted(t, true)
	w := s.subscribe(source.ClusterType)
	send := func(nonce, name, text string) {
		s.out <- &discoveryv3.DeltaDiscoveryResponse{
			TypeUrl: source.ClusterType, Nonce: nonce, Resources: []*discoveryv3.Resource{
				{Name: name, Version: nonce, Resource: anyOf(t, cluster(name, text))},
			},
		}
	}
	send("n1", "a", "slow-a")
	w.want(ctx, t, "a=slow-a")
	send("n2", "b", "bad")
	w.want(ctx, t, "b=bad")
	if r := s.deltaAnswer("n2"); !strings.Contains(r.GetErrorDetail().GetMessage(), "b: ") {
		t.Fatalf("got %v", r)
	}
	w.release("slow-a", nil)
	if r := s.deltaAnswer("n1"); r.GetErrorDetail() != nil {
		t.Fatalf("got %v", r)
	}
	// Removing what is not there does no harm; what does exist goes away.
	s.out <- &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: source.ClusterType, Nonce: "n3", RemovedResources: []string{"a", "nothing"},
	}
	w.want(ctx, t, "-a", "-nothing")
	s.deltaAnswer("n3")
}

func TestNackIsCut(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	s := newScripted(t, false)
	w := s.subscribe(source.ListenerType)
	long := "bad" + strings.Repeat("x", 9000)
	s.push(source.ListenerType, "1", listener("a", long))
	w.want(ctx, t, "a="+long)
	got := s.answer("n1").GetErrorDetail().GetMessage()
	if len(got) > 4200 || !strings.HasSuffix(got, "...(truncated)") {
		t.Fatalf("%d bytes", len(got))
	}
}

func TestAckAfterTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := testContext(t)
		s := newScripted(t, false)
		w := s.subscribe(source.ListenerType)
		start := time.Now()
		s.push(source.ListenerType, "1", listener("a", "slow"))
		w.want(ctx, t, "a=slow")
		r := s.answer("n1")
		if d := time.Since(start); d != 10*time.Second || r.GetErrorDetail() != nil {
			t.Fatalf("answered after %s with %v", d, r)
		}
		// The late answer changes nothing for the server.
		w.release("slow", errBroken)
		s.push(source.ListenerType, "2", listener("a", "ok"))
		w.want(ctx, t, "a=ok")
		if r := s.answer("n2"); r.GetErrorDetail() != nil {
			t.Fatalf("got %v", r)
		}
		s.client.Close()
	})
}

func TestInitialFetchTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := testContext(t)
		s := newScripted(t, false)
		w, st := newWatcher(), &source.Stats{}
		src := source.ADS()
		src.InitialFetchTimeout = 3 * time.Second
		start := time.Now()
		s.client.Subscribe(source.Spec{
			TypeURL: source.RouteType, Names: []string{"r"}, Source: src, Watcher: w, Stats: st,
		})
		if got := w.next(ctx, t); !errors.Is(got.err, source.ErrFetchTimeout) || time.Since(start) != 3*time.Second {
			t.Fatalf("got %+v after %s", got, time.Since(start))
		}
		if st.InitFetchTimeout.Value() != 1 {
			t.Fatal("init_fetch_timeout is not counted")
		}
		// A late answer still counts.
		s.push(source.RouteType, "1", route("r", "1"))
		w.want(ctx, t, "r=1")
		s.client.Close()
	})
}

func TestTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := testContext(t)
		s := newScripted(t, false)
		w := s.subscribe(source.ListenerType)
		start := time.Now()
		s.push(source.ListenerType, "1", &discoveryv3.Resource{
			Name: "a", Version: "1", Ttl: seconds(4), Resource: anyOf(t, listener("a", "1")),
		})
		w.want(ctx, t, "a=1")
		time.Sleep(3 * time.Second) // fake time: the bubble is idle
		s.push(source.ListenerType, "2", &discoveryv3.Resource{Name: "a", Version: "1", Ttl: seconds(4)})
		w.want(ctx, t)
		w.want(ctx, t, "-a")
		if d := time.Since(start); d != 7*time.Second {
			t.Fatalf("gone after %s, want 7s", d)
		}
		s.client.Close()
	})
}

// TestRateLimit: two tokens, then one a second.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lis := bufconn.Listen(1 << 20)
		s := &scripted{t: t, lis: lis, requests: make(chan *discoveryv3.DiscoveryRequest, 10)}
		g := grpc.NewServer()
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
		go func() { _ = g.Serve(lis) }()
		defer g.Stop()
		cfg := adsConfig(false)
		cfg.RateLimit = &source.RateLimit{MaxTokens: 2, FillRate: 1}
		store := stats.New()
		c := xds.New(xds.Config{
			ADS: cfg, Stats: store.Root(),
			Dialer: dialFunc(func(ctx context.Context, _ string) (net.Conn, error) {
				return lis.DialContext(ctx)
			}),
		})
		c.Start()
		defer c.Close()
		start := time.Now()
		for _, url := range []string{source.ClusterType, source.ListenerType, "x/a", "x/b"} {
			c.Subscribe(source.Spec{TypeURL: url, Source: source.ADS(), Watcher: newWatcher()})
		}
		var at []time.Duration
		for range 4 {
			<-s.requests
			at = append(at, time.Since(start))
		}
		if at[1] != 0 || at[2] != time.Second || at[3] != 2*time.Second {
			t.Fatalf("requests at %v", at)
		}
		st := stats.Bind[source.ControlPlaneStats](store.Scope("control_plane"))
		if st.RateLimitEnforced.Value() != 2 || st.ConnectedState.Value() != 1 {
			t.Fatalf("enforced %d, connected %d", st.RateLimitEnforced.Value(), st.ConnectedState.Value())
		}
	})
}

// TestNoNamesAfterBreak: a type that nobody wants any more is not asked for on a new stream; an empty
// list there would mean everything.
func TestNoNamesAfterBreak(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	s := newScripted(t, false)
	w := newWatcher()
	sub := s.client.Subscribe(source.Spec{
		TypeURL: source.RouteType, Names: []string{"r"}, Source: source.ADS(), Watcher: w,
	})
	lds := s.subscribe(source.ListenerType)
	s.push(source.RouteType, "1", route("r", "1"))
	w.want(ctx, t, "r=1")
	s.answer("n1")
	sub.Close()
	for r := range s.requests {
		if r.GetTypeUrl() == source.RouteType && len(r.GetResourceNames()) == 0 {
			break // given up on the old stream
		}
	}
	s.out <- nil // ends the stream
	for r := range s.requests {
		if r.GetTypeUrl() == source.RouteType {
			t.Fatalf("asked for routes: %v", r)
		}
		if r.GetTypeUrl() == source.ListenerType && r.GetResponseNonce() == "" {
			break
		}
	}
	s.push(source.ListenerType, "2", listener("a", "1"))
	lds.want(ctx, t, "a=1")
	for r := range s.requests {
		if r.GetTypeUrl() == source.RouteType {
			t.Fatalf("asked for routes: %v", r)
		}
		if r.GetResponseNonce() == "n2" {
			break
		}
	}
}

// TestBreakWhileWarming: what is decided after the stream has broken is not told on the new stream,
// which never gave that nonce.
func TestBreakWhileWarming(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		ctx := testContext(t)
		s := newScripted(t, delta)
		w := s.subscribe(source.ListenerType)
		a := anyOf(t, listener("a", "slow"))
		send := func(nonce string) {
			if !delta {
				s.push(source.ListenerType, nonce[1:], a)
				return
			}
			s.out <- &discoveryv3.DeltaDiscoveryResponse{
				TypeUrl: source.ListenerType, Nonce: nonce,
				Resources: []*discoveryv3.Resource{{Name: "a", Version: "1", Resource: a}},
			}
		}
		next := func() answering {
			select {
			case r := <-s.requests:
				return r
			case r := <-s.deltas:
				return r
			case <-ctx.Done():
				t.Fatal("no request")
				return nil
			}
		}
		next() // the first of the stream
		send("n1")
		w.want(ctx, t, "a=slow")
		s.out <- nil
		next() // the first of the next
		w.release("slow", errBroken)
		send("n2")
		w.want(ctx, t, "a=slow") // rejected before: given again
		w.release("slow", nil)
		for r := next(); r.GetResponseNonce() != "n2"; r = next() {
			if r.GetResponseNonce() == "n1" || r.GetErrorDetail() != nil {
				t.Fatalf("told on the new stream: %v", r)
			}
		}
	})
}

// answering is the part of the requests of both protocols that answers a response.
type answering interface {
	GetResponseNonce() string
	GetErrorDetail() *statuspb.Status
}

// TestNackText: the form is Envoy's where it has one.
func TestNackText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		url  string
		push []proto.Message
		want string
	}{
		{
			source.ClusterType,
			[]proto.Message{cluster("a", "bad"), cluster("b", "bad")},
			"Error adding/updating cluster(s) a: field.path: is bad, b: field.path: is bad",
		},
		{
			source.ListenerType,
			[]proto.Message{listener("a", "bad"), listener("b", "bad")},
			"Error adding/updating listener(s) a: field.path: is bad\nb: field.path: is bad\n",
		},
		{
			source.RouteType,
			[]proto.Message{route("a", "bad"), route("b", "bad")},
			"a: field.path: is bad\nb: field.path: is bad",
		},
	}
	for _, tt := range tests {
		s := newScripted(t, false)
		var names []string
		if tt.url == source.RouteType {
			names = []string{"a", "b"}
		}
		s.subscribe(tt.url, names...)
		s.push(tt.url, "1", tt.push...)
		if got := s.answer("n1").GetErrorDetail().GetMessage(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
