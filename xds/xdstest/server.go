package xdstest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TB is the part of testing.TB that New uses.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Server is a management server. Its methods may be called from any goroutine.
type Server struct {
	// Set by Start, never changed.
	addr   string
	caches caches
	log    *eventLog

	mu   sync.Mutex // guards below
	grpc *grpc.Server
	done chan struct{}
	stop context.CancelFunc
}

// New starts a server on a free port of the loopback interface and stops it when the test ends.
func New(tb TB) *Server {
	tb.Helper()
	s, err := Start("127.0.0.1:0")
	if err != nil {
		tb.Fatalf("xdstest: %v", err)
	}
	tb.Cleanup(s.Stop)
	return s
}

// Start starts a server on addr: a host and port, or the absolute path of a unix socket.
func Start(addr string) (*Server, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), network(addr), addr)
	if err != nil {
		return nil, err
	}
	s := &Server{addr: l.Addr().String(), log: newEventLog()}
	s.caches.byType = map[string]*typeCache{}
	s.serve(l)
	return s, nil
}

func network(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.addr }

// DialCluster connects to the server, whatever the cluster: it makes a Server the transport.Dialer
// of a client under test.
func (s *Server) DialCluster(ctx context.Context, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network(s.addr), s.addr)
}

// Stop kills the server with all of its streams; what was Set stays for Resume.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grpc == nil {
		return
	}
	s.stop()
	s.grpc.Stop()
	<-s.done
	s.grpc = nil
}

// Resume lets a stopped server serve again, on the same port.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := new(net.ListenConfig).Listen(context.Background(), network(s.addr), s.addr)
	if err != nil {
		return err
	}
	s.serve(l)
	return nil
}

func (s *Server) serve(l net.Listener) {
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.grpc, s.done = grpc.NewServer(), make(chan struct{})
	register(ctx, s.grpc, &s.caches, s.log)
	go func(g *grpc.Server, done chan struct{}) {
		defer close(done)
		_ = g.Serve(l) // ends with Stop
	}(s.grpc, s.done)
}

// Set adds resources, or replaces those of the same type and name, and pushes them: one push a
// type. It returns the version of the push (that of the last resource's type).
func (s *Server) Set(resources ...proto.Message) string {
	byType := map[string]map[string]types.Resource{}
	var order []string
	for _, r := range resources {
		url := typeURL(r)
		if byType[url] == nil {
			byType[url] = map[string]types.Resource{}
			order = append(order, url)
		}
		byType[url][name(r)] = r
	}
	version := ""
	for _, url := range order {
		version = s.caches.of(url).update(byType[url], nil)
	}
	return version
}

// Remove takes resources of one type away, and returns the version of the push.
func (s *Server) Remove(url string, names ...string) string {
	return s.caches.of(url).update(nil, names)
}

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

// name is the first field of every resource.
func name(m proto.Message) string {
	f := m.ProtoReflect().Descriptor().Fields().ByNumber(1)
	if f == nil || f.Kind() != protoreflect.StringKind {
		panic(fmt.Sprintf("xdstest: %T has no name", m))
	}
	return m.ProtoReflect().Get(f).String()
}

// caches is a cache.Cache with one linear cache for each type, made when first asked for: a server
// that has nothing of a type says so instead of breaking the stream.
type caches struct {
	mu     sync.Mutex
	byType map[string]*typeCache
}

type typeCache struct {
	*cache.LinearCache

	mu      sync.Mutex
	version int
}

func (c *caches) of(url string) *typeCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.byType[url]
	if t == nil {
		t = &typeCache{LinearCache: cache.NewLinearCache(url)}
		c.byType[url] = t
	}
	return t
}

// update counts along with the linear cache, which doesn't tell its version.
func (t *typeCache) update(set map[string]types.Resource, remove []string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.version++
	if err := t.UpdateResources(set, remove); err != nil {
		panic(fmt.Sprintf("xdstest: %v", err)) // a resource that can't be serialized
	}
	return strconv.Itoa(t.version)
}

// CreateWatch implements cache.Cache.
func (c *caches) CreateWatch(r *cache.Request, s cache.Subscription, out chan cache.Response,
) (func(), error) {
	return c.of(r.GetTypeUrl()).CreateWatch(r, s, out)
}

// CreateDeltaWatch implements cache.Cache.
func (c *caches) CreateDeltaWatch(r *cache.DeltaRequest, s cache.Subscription,
	out chan cache.DeltaResponse,
) (func(), error) {
	return c.of(r.GetTypeUrl()).CreateDeltaWatch(r, s, out)
}

// Fetch implements cache.Cache.
func (c *caches) Fetch(ctx context.Context, r *cache.Request) (cache.Response, error) {
	return c.of(r.GetTypeUrl()).Fetch(ctx, r)
}
