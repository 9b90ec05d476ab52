package proxyprotocol

import (
	"net/netip"
	"strings"
	"testing"

	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config/configtest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.core.v3.TransportSocket", // cluster
	}, fields, configFields, passFields, tlvFields, rawFields)
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddrPort("1.2.3.4:5"), netip.MustParseAddrPort("6.7.8.9:10")
	c := netip.MustParseAddrPort("[::1]:1")
	const magic = "\r\n\r\n\x00\r\nQUIT\n"
	for _, x := range []struct {
		name      string
		got, want string
	}{
		{"v1", string(headerV1(a, b)), "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"},
		{"v1 of IPv6", string(headerV1(c, c)), "PROXY TCP6 ::1 ::1 1 1\r\n"},
		{"v1 of two families", string(headerV1(a, c)), "PROXY UNKNOWN\r\n"},
		{
			"v2", string(headerV2(a, b, nil)),
			magic + "\x21\x11\x00\x0c\x01\x02\x03\x04\x06\x07\x08\x09\x00\x05\x00\x0a",
		},
		{
			"v2 with TLVs", string(headerV2(a, b, []byte("\x02\x00\x01x"))),
			magic + "\x21\x11\x00\x10\x01\x02\x03\x04\x06\x07\x08\x09\x00\x05\x00\x0a\x02\x00\x01x",
		},
		{"v2 of nothing", string(headerV2(netip.AddrPort{}, netip.AddrPort{}, nil)), magic + "\x20\x00\x00\x00"},
	} {
		if x.got != x.want {
			t.Errorf("%s: got %q, want %q", x.name, x.got, x.want)
		}
	}
}

const inner = `"transport_socket":{"name":"raw","typed_config":{"@type":` +
	`"type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}`

func compile(t *testing.T, text string) (*Transport, *stats.Store, error) {
	t.Helper()
	m := &proxyv3.ProxyProtocolUpstreamTransport{}
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	store := stats.New()
	tr, err := Compile(m, filter.TransportContext{Scope: store.Root}, nil)
	return tr, store, err
}

func TestTLVs(t *testing.T) {
	t.Parallel()
	sent := []stream.ProxyTLV{{Type: 2, Value: []byte("a")}, {Type: 3, Value: []byte("b")}, {Type: 4}}
	for name, x := range map[string]struct{ config, want string }{
		"none":          {`"version":"V2"`, ""},
		"all":           {`"version":"V2","pass_through_tlvs":{}`, "\x02\x00\x01a\x03\x00\x01b\x04\x00\x00"},
		"one":           {`"version":"V2","pass_through_tlvs":{"match_type":"INCLUDE","tlv_type":[3]}`, "\x03\x00\x01b"},
		"added instead": {`"version":"V2","pass_through_tlvs":{},"added_tlvs":[{"type":2,"value":"eA=="}]`, "\x02\x00\x01x\x03\x00\x01b\x04\x00\x00"},
	} {
		tr, _, err := compile(t, `{"config":{`+x.config+`},`+inner+`}`)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(tr.tlvs(sent)); got != x.want {
			t.Errorf("%s: got %q, want %q", name, got, x.want)
		}
	}
}

func TestTLVs_TooLong(t *testing.T) {
	t.Parallel()
	tr, store, err := compile(t, `{"config":{"version":"V2","pass_through_tlvs":{}},`+inner+`}`)
	if err != nil {
		t.Fatal(err)
	}
	big := stream.ProxyTLV{Type: 1, Value: make([]byte, 40_000)}
	if got := tr.tlvs([]stream.ProxyTLV{big, big}); len(got) != 40_003 {
		t.Errorf("%d bytes of TLVs", len(got))
	}
	n := uint64(0)
	store.Each(false, func(s *stats.Sample) { n += s.Counter() })
	if n != 1 {
		t.Errorf("counted %d that do not fit", n)
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	tr, _, err := compile(t, `{"config":{"version":"V2","pass_through_tlvs":{"match_type":"INCLUDE","tlv_type":[3]}},`+inner+`}`)
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) stream.Addr { return stream.IPAddr(netip.MustParseAddrPort(s)) }
	one := &filter.Client{Remote: at("1.1.1.1:1"), Local: at("2.2.2.2:2")}
	keys := map[string]string{}
	for name, c := range map[string]*filter.Client{
		"one":         one,
		"other port":  {Remote: at("1.1.1.1:2"), Local: one.Local},
		"other local": {Remote: one.Remote, Local: at("2.2.2.2:3")},
		"passed TLV":  {Remote: one.Remote, Local: one.Local, TLVs: []stream.ProxyTLV{{Type: 3}}},
	} {
		k := string(tr.AppendClientKey(nil, c))
		if was := keys[k]; was != "" {
			t.Errorf("%s and %s share connections", was, name)
		}
		keys[k] = name
	}
	same := *one
	same.TLVs = []stream.ProxyTLV{{Type: 9}}
	if keys[string(tr.AppendClientKey(nil, &same))] != "one" {
		t.Error("a TLV that is not passed on has a pool of its own")
	}
}

func TestCompile_Refuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"config":{}}`:                                          "transport_socket: is required",
		`{"transport_socket":{"name":"x"}}`:                      `transport socket "" is not supported`,
		`{"config":{"added_tlvs":[{"type":256}]},` + inner + `}`: "config.added_tlvs[0].type: must be less than 256",
		`{"config":{"added_tlvs":[{"type":1,"format_string":{"text_format":"x"}}]},` + inner + `}`: "format_string: is not supported",
		`{"tlv_as_pool_key":true,` + inner + `}`:                                                   "tlv_as_pool_key",
	} {
		if _, _, err := compile(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", text, err, want)
		}
	}
}
