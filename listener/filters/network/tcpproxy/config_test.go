package tcpproxy

import (
	"strings"
	"testing"

	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/config/configtest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.accesslog.v3.AccessLog",    // listener/accesslog
		"envoy.config.core.v3.HeaderValueOption", // internal/mutate
	}, hashFields, stateFields, tunnelFields, fields, weightedFields, weightFields, logFields)
}

func TestCompile_Errors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"no cluster":      {`{"stat_prefix":"p"}`, "one of cluster and weighted_clusters is required"},
		"tunneling":       {`{"stat_prefix":"p","cluster":"c","tunneling_config":{"hostname":"h","post_path":"/x"}}`, "tunneling_config.post_path"},
		"metadata match":  {`{"stat_prefix":"p","weighted_clusters":{"clusters":[{"name":"a","weight":1,"metadata_match":{}}]}}`, "weighted_clusters.clusters[0].metadata_match"},
		"both log fields": {`{"stat_prefix":"p","cluster":"c","flush_access_log_on_connected":true,"access_log_options":{}}`, "Only one of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &tcpv3.TcpProxy{}
			if err := protojson.Unmarshal([]byte(c.in), m); err != nil {
				t.Fatal(err)
			}
			store := stats.New()
			_, err := Compile(m, filter.NetworkContext{Scope: store.Root()}, Env{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			store.Each(false, func(s *stats.Sample) { t.Errorf("a refused configuration leaves %s", s.Name) })
		})
	}
}

func TestPick_Weights(t *testing.T) {
	t.Parallel()
	n := uint64(0)
	c := &Config{
		weighted: []weighted{{"a", 1}, {"b", 0}, {"c", 3}}, total: 4,
		random: func() uint64 { n++; return n },
	}
	got := map[string]int{}
	for range 400 {
		got[c.pick()]++
	}
	if got["a"] != 100 || got["b"] != 0 || got["c"] != 300 {
		t.Errorf("picked %v", got)
	}
}

func TestRetire_GivesStatsBack(t *testing.T) {
	t.Parallel()
	store := stats.New()
	m := &tcpv3.TcpProxy{StatPrefix: "p", ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: "c"}}
	var list []*Config
	for range 2 {
		c, err := Compile(m, filter.NetworkContext{Scope: store.Root()}, Env{})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	count := func() (n int) {
		store.Each(false, func(*stats.Sample) { n++ })
		return n
	}
	list[0].Retire()
	if count() == 0 {
		t.Error("the stats of the second are gone with the first")
	}
	list[1].Retire()
	if n := count(); n != 0 {
		t.Errorf("%d stats are left", n)
	}
}
