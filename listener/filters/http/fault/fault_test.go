package fault

import (
	"strconv"
	"strings"
	"testing"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
	"sidecar/listener/filters/http/filtertest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.route.v3.HeaderMatcher", "envoy.type.v3.FractionalPercent",
		"envoy.extensions.filters.common.fault.v3.FaultDelay.HeaderDelay",
		"envoy.extensions.filters.common.fault.v3.FaultRateLimit.HeaderLimit",
		"envoy.extensions.filters.http.fault.v3.FaultAbort.HeaderAbort",
	}, fields, delayFields, abortFields, limitFields, fixedFields)
}

// lucky is a random number that hits every share but none of 0 %.
func lucky() uint64 { return 0 }

func TestAbort(t *testing.T) {
	t.Parallel()
	const always = "percentage: {numerator: 100}"
	for _, tc := range []struct {
		name, config string
		request      []string
		runtime      map[string]uint64
		status, grpc int // status 0: not aborted
	}{
		{name: "status", config: "{abort: {http_status: 503, " + always + "}}", status: 503, grpc: -1},
		{name: "never", config: "{abort: {http_status: 503}}"},
		{name: "status of gRPC", config: "{abort: {grpc_status: 14, " + always + "}}", status: 503, grpc: 14},
		{
			name: "of requests with a header", config: "{headers: [{name: x, present_match: true}], abort: {http_status: 418, " + always + "}}",
			request: []string{"x: 1"}, status: 418, grpc: -1,
		},
		{name: "not of others", config: "{headers: [{name: x, present_match: true}], abort: {http_status: 418, " + always + "}}"},
		{name: "of a cluster", config: "{upstream_cluster: c, abort: {http_status: 418, " + always + "}}", status: 418, grpc: -1},
		{name: "not of another", config: "{upstream_cluster: d, abort: {http_status: 418, " + always + "}}"},
		{
			name: "of a node", config: "{downstream_nodes: [node], abort: {http_status: 418, " + always + "}}",
			request: []string{"x-envoy-downstream-service-node: node"}, status: 418, grpc: -1,
		},
		{name: "not of another node", config: "{downstream_nodes: [node], abort: {http_status: 418, " + always + "}}"},
		{
			name: "by header", config: "{abort: {header_abort: {}, " + always + "}}",
			request: []string{"x-envoy-fault-abort-request: 429"}, status: 429, grpc: -1,
		},
		{
			name: "by a header that is no status", config: "{abort: {header_abort: {}, " + always + "}}",
			request: []string{"x-envoy-fault-abort-request: 42"},
		},
		{
			name: "by a header for gRPC", config: "{abort: {header_abort: {}, " + always + "}}",
			request: []string{"x-envoy-fault-abort-grpc-request: 5"}, status: 200, grpc: 5,
		},
		{
			name: "by header, of a share of none", config: "{abort: {header_abort: {}, " + always + "}}",
			request: []string{"x-envoy-fault-abort-request: 429", "x-envoy-fault-abort-request-percentage: 0"},
		},
		{
			name: "a header makes no share larger", config: "{abort: {header_abort: {}, percentage: {numerator: 0}}}",
			request: []string{"x-envoy-fault-abort-request: 429", "x-envoy-fault-abort-request-percentage: 100"},
		},
		{
			name: "status of the runtime", config: "{abort: {http_status: 503, " + always + "}}",
			runtime: map[string]uint64{"fault.http.abort.http_status": 507}, status: 507, grpc: -1,
		},
		{
			name: "share of the runtime", config: "{abort: {http_status: 503, " + always + "}}",
			runtime: map[string]uint64{"fault.http.abort.abort_percent": 0},
		},
		{
			name: "no more at a time", config: "{max_active_faults: 1, abort: {http_status: 503, " + always + "}}",
			runtime: map[string]uint64{"fault.http.max_active_faults": 0},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			store := stats.New()
			number := func(key string) (uint64, bool) { n, ok := tc.runtime[key]; return n, ok }
			entry := Entry(Env{Random: lucky, RuntimeNumber: number, Runtime: func(key string) (config.Fraction, bool) {
				n, ok := number(key)
				return config.Fraction{Numerator: uint32(n), Denominator: 100}, ok
			}})
			factory, err := filtertest.Compile(t, entry, store, tc.config)
			if err != nil {
				t.Fatal(err)
			}
			s := filtertest.NewStream()
			f := factory.NewFilter(s)
			s.Request(f, filtertest.Fields(append(tc.request, "x-envoy-downstream-service-cluster: me")...), nil, nil)
			scope, aborted := store.Scope("fault"), tc.status != 0
			if active := scope.Gauge("active_faults").Value(); (active == 1) != aborted {
				t.Errorf("%d faults are active", active)
			}
			for _, name := range []string{"aborts_injected", "me.aborts_injected"} {
				if n := scope.Counter(name).Value(); (n == 1) != aborted {
					t.Errorf("%s: %d", name, n)
				}
			}
			r := s.Replied
			switch {
			case (r != nil) != aborted:
				t.Errorf("reply %+v", r)
			case r != nil && (r.Status != tc.status || r.GRPCStatus != tc.grpc || r.Details != "fault_filter_abort" ||
				r.Body != "fault filter abort" || r.Flag != stream.FaultInjected):
				t.Errorf("reply %+v", r)
			}
			s.Destroy(f)
			if n := scope.Gauge("active_faults").Value(); n != 0 {
				t.Errorf("%d faults are active after the stream", n)
			}
		})
	}
}

func TestRouteTakesThePlace(t *testing.T) {
	t.Parallel()
	entry := Entry(Env{Random: lucky})
	factory, err := filtertest.Compile(t, entry, stats.New(), "{abort: {http_status: 503, percentage: {numerator: 100}}}")
	if err != nil {
		t.Fatal(err)
	}
	s := filtertest.NewStream()
	s.Policy = filtertest.CompileRoute(t, entry, "{}")
	f := factory.NewFilter(s)
	if s.Request(f, filtertest.Fields(), nil, nil); s.Replied != nil {
		t.Errorf("reply %+v", s.Replied)
	}
	s.Destroy(f)
}

// TestNodes bounds the counters that clients name.
func TestNodes(t *testing.T) {
	t.Parallel()
	store := stats.New()
	factory, err := filtertest.Compile(t, Entry(Env{Random: lucky}), store, "{abort: {http_status: 503, percentage: {numerator: 100}}}")
	if err != nil {
		t.Fatal(err)
	}
	names := append([]string{strings.Repeat("x", 1000)}, make([]string, 1000)...)
	for i := range names[1:] {
		names[i+1] = "n" + strconv.Itoa(i)
	}
	for _, name := range names {
		s := filtertest.NewStream()
		f := factory.NewFilter(s)
		s.Request(f, filtertest.Fields("x-envoy-downstream-service-cluster: "+name), nil, nil)
		s.Destroy(f)
	}
	n := 0
	store.Each(true, func(*stats.Sample) { n++ })
	if n > maxNodes+10 {
		t.Errorf("%d statistics", n)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	_, err := filtertest.Compile(t, Entry(Env{Random: lucky}), stats.New(), "{filter_metadata: {a: b}}")
	if err == nil || !strings.Contains(err.Error(), "filter_metadata") {
		t.Errorf("error %v", err)
	}
}
