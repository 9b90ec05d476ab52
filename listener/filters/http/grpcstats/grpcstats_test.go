package grpcstats

import (
	"fmt"
	"testing"
	"time"

	"sidecar/api/stats"
	"sidecar/internal/config/configtest"
	"sidecar/internal/format"
	"sidecar/listener/filters/http/filtertest"
)

const frames = "\x00\x00\x00\x00\x03\x01\x02\x03\x00\x00\x00\x00\x01\x09"

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields, listFields, serviceFields)
}

// TestStats has the names that Envoy 1.40 used.
func TestStats(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, config, path, prefix string }{
		{"all", "{stats_for_all_methods: true}", "/s.A/m", "s.A.m."},
		{"none", "{}", "/s.A/m", ""},
		{"none by name", "{stats_for_all_methods: false}", "/s.A/m", ""},
		{"dots", "{stats_for_all_methods: true, replace_dots_in_grpc_service_name: true}", "/s.A/m", "s_A.m."},
		{
			"listed", "{individual_method_stats_allowlist: {services: [{name: s.A, method_names: [m]}]}}", "/s.A/m",
			"s.A.m.",
		},
		{
			"not listed", "{individual_method_stats_allowlist: {services: [{name: s.A, method_names: [m]}]}}", "/s.A/n",
			"",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := stats.New()
			factory, err := filtertest.Compile(t, Entry(), store, tt.config)
			if err != nil {
				t.Fatal(err)
			}
			s := filtertest.NewStream()
			f := factory.NewFilter(s)
			s.Request(f, filtertest.Fields(":path: "+tt.path, "content-type: application/grpc"),
				[]string{frames[:3], frames[3:]}, nil)
			s.Response(f, filtertest.Fields(":status: 200", "content-type: application/grpc+proto"),
				[]string{frames}, filtertest.Fields("grpc-status: 5"))
			for name, want := range map[string]uint64{
				"request_message_count": 2, "response_message_count": 2, "5": 1, "failure": 1, "total": 1, "success": 0,
			} {
				if got := store.Scope("cluster.c.grpc." + tt.prefix).Counter(name).Value(); got != want {
					t.Errorf("%s: %d, want %d", name, got, want)
				}
			}
			if s.Record.FilterState != nil {
				t.Error("there is a filter state")
			}
			s.Destroy(f)
		})
	}
}

func TestFilterState(t *testing.T) {
	t.Parallel()
	store := stats.New()
	factory, err := filtertest.Compile(t, Entry(), store,
		"{emit_filter_state: true, stats_for_all_methods: true, enable_upstream_stats: true}")
	if err != nil {
		t.Fatal(err)
	}
	s := filtertest.NewStream()
	f := factory.NewFilter(s)
	s.Request(f, filtertest.Fields(":path: /s.A/m", "content-type: application/grpc"), []string{frames}, nil)
	if got := string(format.AppendJSON(nil, s.Record.FilterState[Name].Value)); got != `{"requestMessageCount":"2"}` {
		t.Error(got)
	}
	s.Record.LastTxUpstream, s.Record.LastRxUpstream = time.Millisecond, 8*time.Millisecond
	s.Response(f, filtertest.Fields(":status: 200", "content-type: application/grpc"), []string{frames[:8]},
		filtertest.Fields("grpc-status: 0"))
	v := s.Record.FilterState[Name].Value
	if got := string(format.AppendJSON(nil, v)) + " " + fmt.Sprint(v); got !=
		`{"requestMessageCount":"2","responseMessageCount":"1"} 2,1` {
		t.Error(got)
	}
	h := store.Scope("cluster.c.grpc.s.A.m").Histogram("upstream_rq_time", stats.Milliseconds)
	if got := h.Cumulative(); got.Count() != 1 {
		t.Errorf("%v", got)
	}
	s.Destroy(f)
}

// TestOthers: a request that isn't of gRPC is left alone.
func TestOthers(t *testing.T) {
	t.Parallel()
	factory, err := filtertest.Compile(t, Entry(), stats.New(), "{stats_for_all_methods: true, emit_filter_state: true}")
	if err != nil {
		t.Fatal(err)
	}
	s := filtertest.NewStream()
	f := factory.NewFilter(s)
	if got := s.Request(f, filtertest.Fields(":path: /s.A/m", "content-type: text/plain"), []string{"x"}, nil); got != "x" {
		t.Error(got)
	}
	if s.Record.FilterState != nil {
		t.Error("there is a filter state")
	}
	s.Destroy(f)
}
