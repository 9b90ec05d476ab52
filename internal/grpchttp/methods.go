package grpchttp

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"sidecar/api/header"
	"sidecar/api/stats"
)

// maxMethods bounds the methods that have stats of their own, since clients name them.
//
// DIVERGES(grpc-methods): Envoy makes stats for every path that a client thinks of. Here calls of
// methods beyond this many are counted for the cluster alone.
const maxMethods = 4096

// Methods makes and finds the stats of gRPC methods, "cluster.NAME.grpc.SERVICE.METHOD." (Envoy:
// Grpc::Context). It may be used from any goroutine.
type Methods struct {
	scope *stats.Scope

	mu    sync.RWMutex // guards below
	known map[methodKey]*Method
}

type methodKey struct{ cluster, protocol, service, method string }

// NewMethods makes stats below the server's scope.
func NewMethods(scope *stats.Scope) *Methods {
	return &Methods{scope: scope, known: map[methodKey]*Method{}}
}

// SplitPath takes "/service/method" apart; a query is not part of the method.
func SplitPath(path string) (service, method string, ok bool) {
	path, _, _ = strings.Cut(path, "?")
	path, ok = strings.CutPrefix(path, "/")
	if !ok {
		return "", "", false
	}
	service, method, ok = strings.Cut(path, "/")
	return service, method, ok && service != "" && method != "" && strings.IndexByte(method, '/') < 0
}

// Of returns the stats of a method of a cluster; without a service those of the cluster. The protocol
// is "grpc" or "grpc-web".
func (m *Methods) Of(cluster, protocol, service, method string) *Method {
	key := methodKey{cluster, protocol, service, method}
	m.mu.RLock()
	x, full := m.known[key], len(m.known) >= maxMethods
	m.mu.RUnlock()
	switch {
	case x != nil:
		return x
	case full && service != "":
		return m.Of(cluster, protocol, "", "")
	}
	key = methodKey{strings.Clone(cluster), strings.Clone(protocol), strings.Clone(service), strings.Clone(method)}
	name := "cluster." + cluster + "." + protocol
	if service != "" {
		name += "." + service + "." + method
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if x = m.known[key]; x == nil {
		x = &Method{scope: m.scope.Sub(name)}
		m.known[key] = x
	}
	return x
}

// Method are the stats of one method. Each is listed from its first use on.
type Method struct {
	scope    *stats.Scope
	counters [numCounters]atomic.Pointer[stats.Counter]
	time     atomic.Pointer[stats.Histogram]
}

const (
	maxStatus = 16 // UNAUTHENTICATED

	success = iota + maxStatus
	failure
	total
	requests
	responses
	numCounters
)

func (m *Method) counter(i int) *stats.Counter {
	if c := m.counters[i].Load(); c != nil {
		return c
	}
	var name string
	switch i {
	case success:
		name = "success"
	case failure:
		name = "failure"
	case total:
		name = "total"
	case requests:
		name = "request_message_count"
	case responses:
		name = "response_message_count"
	default:
		name = strconv.Itoa(i)
	}
	c := m.scope.Counter(name)
	m.counters[i].Store(c)
	return c
}

// Charge counts a call by the grpc-status of h, which is a response's head or trailers; without one it
// does nothing.
func (m *Method) Charge(h *header.Map) {
	v, ok := h.GetID(header.GrpcStatus)
	if !ok {
		return
	}
	if n, err := strconv.Atoi(v); err == nil && n >= 0 && n <= maxStatus {
		m.counter(n).Inc()
	}
	if v == "0" {
		m.counter(success).Inc()
	} else {
		m.counter(failure).Inc()
	}
	m.counter(total).Inc()
}

// Requests and Responses count messages.
func (m *Method) Requests(n uint64) { m.counter(requests).Add(n) }

// Responses counts messages of the upstream.
func (m *Method) Responses(n uint64) { m.counter(responses).Add(n) }

// Time records how long the upstream took, in milliseconds.
func (m *Method) Time(ms uint64) {
	h := m.time.Load()
	if h == nil {
		h = m.scope.Histogram("upstream_rq_time", stats.Milliseconds)
		m.time.Store(h)
	}
	h.Record(ms)
}
