package alpn

import (
	"testing"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config/configtest"
	"sidecar/listener/filters/http/filtertest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields, overrideFields)
}

func TestALPN(t *testing.T) {
	t.Parallel()
	const conf = `{alpn_override: [{alpn_override: [istio-http/1.0, istio]}, {upstream_protocol: HTTP11, alpn_override: [istio-http/1.1, istio, http/1.1]},
	  {upstream_protocol: HTTP2, alpn_override: [istio-h2, istio, h2]}]}`
	for name, tt := range map[string]struct {
		protocol stream.Protocol
		metadata map[string]map[string]any
		missing  bool
		want     any
	}{
		"HTTP/1.1":   {stream.HTTP11, nil, false, "istio-http/1.1,istio,http/1.1"},
		"HTTP/2":     {stream.HTTP2, nil, false, "istio-h2,istio,h2"},
		"off":        {stream.HTTP2, map[string]map[string]any{"istio": {"alpn_override": "false"}}, false, nil},
		"no cluster": {stream.HTTP2, nil, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Entry(func(cluster string, down stream.Protocol) (stream.Protocol, map[string]map[string]any, bool) {
				if cluster != "c" || down != stream.HTTP11 {
					t.Errorf("asked for %s, %s", cluster, down)
				}
				return tt.protocol, tt.metadata, !tt.missing
			})
			factory, err := filtertest.Compile(t, e, stats.New(), conf)
			if err != nil {
				t.Fatal(err)
			}
			s := filtertest.NewStream()
			s.Request(factory.NewFilter(s), filtertest.Fields(":path: /"), nil, nil)
			if got := s.Record.FilterState[stateKey].Value; got != tt.want {
				t.Errorf("%v", got)
			}
		})
	}
}
