package chain

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, matchFields, rangeFields)
}

func compile(t testing.TB, list ...string) []*Match {
	t.Helper()
	var errs config.Errors
	var out []*Match
	for _, s := range list {
		m := &listenerv3.FilterChainMatch{}
		if err := protojson.Unmarshal([]byte(s), m); err != nil {
			t.Fatal(err)
		}
		out = append(out, CompileMatch(nil, m, &errs))
	}
	if err := errs.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func conn(local, remote, sni, transport, alpn string) *stream.ConnInfo {
	l, r := netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)
	return &stream.ConnInfo{
		Local: stream.IPAddr(l), Remote: stream.IPAddr(r), Direct: stream.IPAddr(r),
		SNI: sni, TransportProtocol: transport, ALPN: alpn,
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	const l, r = "10.0.0.1:443", "192.168.0.9:5555"
	for _, c := range []struct {
		name   string
		chains []string
		info   *stream.ConnInfo
		want   int
	}{
		{"no chains", nil, conn(l, r, "", "raw_buffer", ""), -1},
		{"catch-all", []string{`{}`}, conn(l, r, "", "raw_buffer", ""), 0},
		{"the port comes first, and there is no way back", []string{`{"destination_port":443,"server_names":["a.test"]}`, `{}`}, conn(l, r, "b.test", "tls", ""), -1},
		{"longest prefix", []string{`{"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}]}`, `{"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":24}]}`}, conn(l, r, "", "tls", ""), 1},
		{"prefix before server name", []string{`{"server_names":["a.test"]}`, `{"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}]}`}, conn(l, r, "a.test", "tls", ""), 1},
		{"exact name before wildcard", []string{`{"server_names":["*.b.test"]}`, `{"server_names":["a.b.test"]}`}, conn(l, r, "a.b.test", "tls", ""), 1},
		{"longer wildcard", []string{`{"server_names":["*.test"]}`, `{"server_names":["*.b.test"]}`}, conn(l, r, "a.b.test", "tls", ""), 1},
		{"a wildcard is not its own suffix", []string{`{"server_names":["*.b.test"]}`}, conn(l, r, "b.test", "tls", ""), -1},
		{"names in any case", []string{`{"server_names":["A.Test"]}`}, conn(l, r, "a.test", "tls", ""), 0},
		{"transport protocol", []string{`{"transport_protocol":"raw_buffer"}`, `{"transport_protocol":"tls"}`}, conn(l, r, "", "tls", ""), 1},
		{"the client's order of protocols", []string{`{"application_protocols":["http/1.1"]}`, `{"application_protocols":["h2"]}`}, conn(l, r, "", "tls", "h2,http/1.1"), 1},
		{"many protocols", []string{`{}`, `{"application_protocols":["h2"]}`}, conn(l, r, "", "tls", strings.Repeat("x,", 3000)+"h2"), 1},
		{"none of the protocols", []string{`{"application_protocols":["h2"]}`, `{}`}, conn(l, r, "", "tls", "spdy"), 1},
		{"loopback is local", []string{`{"source_type":"EXTERNAL"}`, `{"source_type":"SAME_IP_OR_LOOPBACK"}`}, conn(l, "127.0.0.1:1", "", "", ""), 1},
		{"same address is local", []string{`{"source_type":"EXTERNAL"}`, `{"source_type":"SAME_IP_OR_LOOPBACK"}`}, conn(l, "10.0.0.1:9", "", "", ""), 1},
		{"external", []string{`{"source_type":"EXTERNAL"}`, `{"source_type":"SAME_IP_OR_LOOPBACK"}`}, conn(l, r, "", "", ""), 0},
		{"source prefix, then port", []string{`{"source_prefix_ranges":[{"address_prefix":"192.168.0.0","prefix_len":16}]}`, `{"source_prefix_ranges":[{"address_prefix":"192.168.0.0","prefix_len":16}],"source_ports":[5555]}`}, conn(l, r, "", "", ""), 1},
		{"direct source", []string{`{"direct_source_prefix_ranges":[{"address_prefix":"1.0.0.0","prefix_len":8}]}`}, conn(l, r, "", "", ""), -1},
		{"IPv6", []string{`{"prefix_ranges":[{"address_prefix":"fd00::","prefix_len":8}]}`}, conn("[fd00::1]:443", "[fd00::2]:1", "", "", ""), 0},
		{"unix socket", []string{`{"destination_port":443}`, `{"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}]}`, `{"source_type":"SAME_IP_OR_LOOPBACK"}`}, &stream.ConnInfo{Local: stream.PipeAddr("/a"), Remote: stream.PipeAddr("@")}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := Find(compile(t, c.chains...), c.info); got != c.want {
				t.Errorf("Find = %d, want %d", got, c.want)
			}
		})
	}
}

func TestCompileMatch_Errors(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"destination_port":0}`:                                            "m.destination_port",
		`{"destination_port":65536}`:                                        "m.destination_port",
		`{"source_ports":[70000]}`:                                          "m.source_ports[0]",
		`{"server_names":["*"]}`:                                            "partial wildcards",
		`{"server_names":["a.*.test"]}`:                                     "m.server_names[0]",
		`{"prefix_ranges":[{"address_prefix":"x"}]}`:                        "m.prefix_ranges[0].address_prefix",
		`{"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":33}]}`: "m.prefix_ranges[0].prefix_len",
		`{"address_suffix":"x"}`:                                            "m.address_suffix",
	} {
		m := &listenerv3.FilterChainMatch{}
		if err := protojson.Unmarshal([]byte(in), m); err != nil {
			t.Fatal(err)
		}
		var errs config.Errors
		CompileMatch(config.Field("m"), m, &errs)
		if err := errs.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", in, err, want)
		}
	}
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		a, b string
		want bool
	}{
		{"both empty", `{}`, `{}`, true},
		{"a name in common", `{"server_names":["a","b"]}`, `{"server_names":["b","c"]}`, true},
		{"a name and none", `{"server_names":["a"]}`, `{}`, false},
		{"other ports", `{"destination_port":1}`, `{"destination_port":2}`, false},
		{"same prefix, written differently", `{"prefix_ranges":[{"address_prefix":"10.1.2.3","prefix_len":8}]}`, `{"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}]}`, true},
		{"a longer prefix", `{"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":9}]}`, `{"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}]}`, false},
		{"protocols apart", `{"server_names":["a"],"application_protocols":["h2"]}`, `{"server_names":["a"],"application_protocols":["http/1.1"]}`, false},
		{"source port in common", `{"source_ports":[1,2]}`, `{"source_ports":[2]}`, true},
	} {
		var o Overlaps
		m := compile(t, c.a, c.b)
		if o.Add(m[0]) != -1 {
			t.Errorf("%s: the first overlaps", c.name)
		}
		if got := o.Add(m[1]) == 0; got != c.want {
			t.Errorf("%s: overlap %v, want %v", c.name, got, c.want)
		}
	}
}

// reference looks chains up as Envoy does: at each criterion it asks for the keys of the connection
// from the most specific to the empty one, and goes on with the chains that have the first key that
// any chain has.
func reference(chains []*listenerv3.FilterChainMatch, c *stream.ConnInfo) int {
	left := make([]int, len(chains))
	for i := range left {
		left[i] = i
	}
	step := func(keysOf func(*listenerv3.FilterChainMatch) []string, wanted []string) {
		for _, k := range wanted {
			var hit []int
			for _, i := range left {
				keys := keysOf(chains[i])
				if len(keys) == 0 {
					keys = []string{""}
				}
				if slices.Contains(keys, k) {
					hit = append(hit, i)
				}
			}
			if hit != nil {
				left = hit
				return
			}
		}
		left = nil
	}
	one := func(s string) []string {
		if s == "" || s == "0" {
			return nil
		}
		return []string{s}
	}
	port := func(a stream.Addr) []string { return []string{fmt.Sprint(a.IP.Port()), ""} }
	step(func(m *listenerv3.FilterChainMatch) []string {
		return one(fmt.Sprint(m.GetDestinationPort().GetValue()))
	}, port(c.Local))
	step(func(m *listenerv3.FilterChainMatch) []string { return prefixKeys(m.GetPrefixRanges()) }, containing(c.Local))
	names := []string{c.SNI}
	for rest := c.SNI; strings.Contains(rest, "."); {
		_, rest, _ = strings.Cut(rest, ".")
		names = append(names, "*."+rest)
	}
	step((*listenerv3.FilterChainMatch).GetServerNames, append(names, ""))
	step(func(m *listenerv3.FilterChainMatch) []string { return one(m.GetTransportProtocol()) }, []string{c.TransportProtocol, ""})
	step((*listenerv3.FilterChainMatch).GetApplicationProtocols, append(strings.Split(c.ALPN, ","), ""))
	step(func(m *listenerv3.FilterChainMatch) []string { return prefixKeys(m.GetDirectSourcePrefixRanges()) }, containing(c.Direct))
	kind := "EXTERNAL"
	if c.Remote.IP.Addr().IsLoopback() || c.Remote.IP.Addr() == c.Local.IP.Addr() {
		kind = "SAME_IP_OR_LOOPBACK"
	}
	step(func(m *listenerv3.FilterChainMatch) []string {
		if m.GetSourceType() == listenerv3.FilterChainMatch_ANY {
			return nil
		}
		return one(m.GetSourceType().String())
	}, []string{kind, ""})
	step(func(m *listenerv3.FilterChainMatch) []string { return prefixKeys(m.GetSourcePrefixRanges()) }, containing(c.Remote))
	step(func(m *listenerv3.FilterChainMatch) (out []string) {
		for _, p := range m.GetSourcePorts() {
			out = append(out, fmt.Sprint(p))
		}
		return out
	}, port(c.Remote))
	if left == nil {
		return -1
	}
	return left[0]
}

func prefixKeys(list []*corev3.CidrRange) (out []string) {
	for _, r := range list {
		p, _ := netip.MustParseAddr(r.GetAddressPrefix()).Prefix(int(r.GetPrefixLen().GetValue()))
		out = append(out, p.String())
	}
	return out
}

func containing(a stream.Addr) (out []string) {
	for bits := 32; bits >= 0; bits-- {
		p, _ := a.IP.Addr().Prefix(bits)
		out = append(out, p.String())
	}
	return append(out, "")
}

// TestFind_LikeEnvoy compares Find with the reference on random chains and connections, drawn from
// few values so that they meet.
func TestFind_LikeEnvoy(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	cidr := func() []*corev3.CidrRange {
		if r.IntN(2) == 0 {
			return nil
		}
		return []*corev3.CidrRange{{
			AddressPrefix: pick("10.0.0.0", "10.1.0.0", "127.0.0.1"), PrefixLen: wrapperspb.UInt32([]uint32{0, 8, 16, 32}[r.IntN(4)]),
		}}
	}
	some := func(list ...string) (out []string) {
		for range r.IntN(3) {
			out = append(out, pick(list...))
		}
		return out
	}
	address := func() string { return pick("10.0.0.0:1", "10.1.0.0:2", "127.0.0.1:1", "11.0.0.1:2") }
	found := 0
	for range 20_000 {
		var protos []*listenerv3.FilterChainMatch
		var chains []*Match
		var errs config.Errors
		for range 1 + r.IntN(5) {
			m := &listenerv3.FilterChainMatch{
				PrefixRanges: cidr(), ServerNames: some("a.b.test", "*.b.test", "*.test"),
				TransportProtocol: pick("", "tls"), ApplicationProtocols: some("h2", "http/1.1"),
				DirectSourcePrefixRanges: cidr(), SourcePrefixRanges: cidr(),
				SourceType: listenerv3.FilterChainMatch_ConnectionSourceType(r.IntN(3)),
			}
			if r.IntN(3) == 0 {
				m.DestinationPort = wrapperspb.UInt32(uint32(1 + r.IntN(2)))
			}
			if r.IntN(3) == 0 {
				m.SourcePorts = []uint32{uint32(1 + r.IntN(2))}
			}
			protos = append(protos, m)
			chains = append(chains, CompileMatch(nil, m, &errs))
		}
		if err := errs.Err(); err != nil {
			t.Fatal(err)
		}
		info := conn(address(), address(), pick("", "a.b.test", "c.b.test", "b.test", "x"), pick("raw_buffer", "tls"), pick("", "h2", "http/1.1,h2", "x"))
		want, got := reference(protos, info), Find(chains, info)
		if got != want {
			t.Fatalf("Find = %d, want %d for %+v among %v", got, want, info, protos)
		}
		if got >= 0 {
			found++
		}
	}
	if found < 500 {
		t.Errorf("only %d connections found a chain: the test shows little", found)
	}
}
