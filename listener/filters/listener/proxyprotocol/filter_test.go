package proxyprotocol

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	"github.com/google/go-cmp/cmp"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config/configtest"
)

const ipv4 = "\x01\x02\x03\x04\x05\x06\x07\x08\x04\x57\x08\xae" // 1.2.3.4:1111 to 5.6.7.8:2222

func v2header(command, family byte, rest string) string {
	b := []byte(v2Signature)
	b = append(b, command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rest)))
	return string(b) + rest
}

func compile(t testing.TB, m *proxyprotocolv3.ProxyProtocol) *Filter {
	t.Helper()
	f, err := Compile(m, filter.ListenerContext{Scope: stats.New().Root()})
	if err != nil {
		t.Fatal(err)
	}
	return f.(*Filter)
}

func addr(s string) stream.Addr { return stream.IPAddr(netip.MustParseAddrPort(s)) }

// TestInspect holds the answers of Envoy 1.40.
func TestInspect(t *testing.T) {
	t.Parallel()
	const body = "hello"
	type want struct {
		verdict       filter.Verdict
		remote, local string // "" is unchanged
		meta          string
	}
	pass, reject, more := want{verdict: filter.Next}, want{verdict: filter.Reject}, want{verdict: filter.More}
	there := want{verdict: filter.Next, remote: "1.2.3.4:1111", local: "5.6.7.8:2222"}
	tagged := func(s string) want { w := there; w.meta = s; return w }
	for name, c := range map[string]struct {
		in   string // followed by body
		want want
	}{
		"v1":                          {"PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n", there},
		"v1 IPv6":                     {"PROXY TCP6 1::2 3::4 1111 2222\r\n", want{filter.Next, "[1::2]:1111", "[3::4]:2222", ""}},
		"v1 unknown":                  {"PROXY UNKNOWN\r\n", pass},
		"v1 unknown, addresses":       {"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", pass},
		"v1 bad address":              {"PROXY TCP4 1.2.3 5.6.7.8 1111 2222\r\n", reject},
		"v1 other family":             {"PROXY TCP6 1.2.3.4 5.6.7.8 1111 2222\r\n", reject},
		"v1 port too large":           {"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2222\r\n", reject},
		"v1 no end":                   {"PROXY TCP4 " + strings.Repeat("1", 200), reject},
		"v1 bare LF":                  {"PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\nhello\r\n", reject},
		"v1 UDP":                      {"PROXY UDP4 1.2.3.4 5.6.7.8 1111 2222\r\n", reject},
		"v1 too many words":           {"PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222 x\r\n", reject},
		"v1 two blanks":               {"PROXY TCP4  1.2.3.4 5.6.7.8 1111 2222\r\n", reject},
		"v1 multicast":                {"PROXY TCP4 224.0.0.1 5.6.7.8 1111 2222\r\n", reject},
		"v1 unspecified":              {"PROXY TCP4 0.0.0.0 5.6.7.8 1111 0\r\n", reject},
		"v1 leading zero":             {"PROXY TCP4 01.2.3.4 5.6.7.8 1111 2222\r\n", reject},
		"v1 zone":                     {"PROXY TCP6 fe80::1%1 3::4 1111 2222\r\n", reject},
		"v2":                          {v2header(0x21, 0x11, ipv4), there},
		"v2 datagram":                 {v2header(0x21, 0x12, ipv4), there},
		"v2 IPv6":                     {v2header(0x21, 0x21, "\x00\x01"+strings.Repeat("\x00", 13)+"\x02\x00\x03"+strings.Repeat("\x00", 13)+"\x04\x00\x01\x00\x02"), want{filter.Next, "[1::2]:1", "[3::4]:2", ""}},
		"v2 local":                    {v2header(0x20, 0, ""), pass},
		"v2 local with addresses":     {v2header(0x20, 0x11, ipv4), pass},
		"v2 local with TLVs":          {v2header(0x20, 0, "\x02\x00\x03abc"), pass},
		"v2 unix":                     {v2header(0x21, 0x31, strings.Repeat("\x00", 216)), reject},
		"v2 unspecified":              {v2header(0x21, 0, ""), reject},
		"v2 addresses cut short":      {v2header(0x21, 0x11, "\x01\x02\x03"), reject},
		"v2 version 3":                {v2header(0x31, 0x11, ipv4), reject},
		"v2 command 2":                {v2header(0x22, 0x11, ipv4), reject},
		"v2 TLV":                      {v2header(0x21, 0x11, ipv4+"\x02\x00\x03abc\x03\x00\x01z"), tagged("abc")},
		"v2 TLV twice: the first":     {v2header(0x21, 0x11, ipv4+"\x02\x00\x03abc\x02\x00\x01z"), tagged("abc")},
		"v2 TLV that is no text":      {v2header(0x21, 0x11, ipv4+"\x02\x00\x03\xff\x00a"), tagged("!\x00a")},
		"v2 TLV longer than the rest": {v2header(0x21, 0x11, ipv4+"\x02\x00\x09abc"), reject},
		"v2 TLV cut short":            {v2header(0x21, 0x11, ipv4+"\x02"), reject},
		"v2 as long as can be":        {v2header(0x21, 0x11, ipv4+"\x05\xff\x00"+strings.Repeat("x", 0xff00)), there},
		"no header":                   {"hello world, this is long enough", reject},
		"nearly a header":             {"PROXYhello dolly and more to see", reject},
		"part of v1":                  {"\x00", reject},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := compile(t, &proxyprotocolv3.ProxyProtocol{Rules: []*proxyprotocolv3.ProxyProtocol_Rule{
				{TlvType: 2, OnTlvPresent: &proxyprotocolv3.ProxyProtocol_KeyValuePair{Key: "auth"}},
			}})
			remote, local := addr("127.0.0.1:5"), addr("127.0.0.1:6")
			info := &stream.ConnInfo{Remote: remote, Local: local}
			consume, v := f.Inspect([]byte(c.in+body), info)
			if v != c.want.verdict {
				t.Fatalf("verdict %d, want %d", v, c.want.verdict)
			}
			if v == filter.Next && consume != len(c.in) {
				t.Errorf("consumes %d bytes of a header of %d", consume, len(c.in))
			}
			if c.want.remote != "" {
				remote, local = addr(c.want.remote), addr(c.want.local)
			}
			if info.Remote != remote || info.Local != local || info.LocalRestored != (c.want.remote != "") {
				t.Errorf("remote %v local %v restored %v", info.Remote, info.Local, info.LocalRestored)
			}
			var meta map[string]map[string]any
			if c.want.meta != "" {
				meta = map[string]map[string]any{namespace: {"auth": c.want.meta}}
			}
			if d := cmp.Diff(meta, info.Metadata); d != "" {
				t.Error(d)
			}
			if (f.errors.Value() == 1) != (v == filter.Reject) {
				t.Errorf("downstream_cx_proxy_proto_error = %d", f.errors.Value())
			}
			if v != filter.Next {
				return
			}
			// Every part of the header asks for more.
			for n := range min(len(c.in), 100) {
				if _, v := f.Inspect([]byte(c.in[:n]), &stream.ConnInfo{}); v != filter.More {
					t.Fatalf("verdict %d after %d bytes, want %d", v, n, more.verdict)
				}
			}
		})
	}
}

func TestInspect_Optional(t *testing.T) {
	t.Parallel()
	const one = "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n"
	noV1 := []corev3.ProxyProtocolConfig_Version{corev3.ProxyProtocolConfig_V1}
	for _, c := range []struct {
		name, in   string
		disallowed []corev3.ProxyProtocolConfig_Version
		required   bool
		verdict    filter.Verdict
		consume    int
		counted    func(*Stats) *stats.Counter
	}{
		{"a header", one, nil, false, filter.Next, len(one), func(s *Stats) *stats.Counter { return &s.V1.Found }},
		{"none", "hello", nil, false, filter.Next, 0, func(s *Stats) *stats.Counter { return &s.NotFoundAllowed }},
		{"none, short", "h", nil, false, filter.Next, 0, func(s *Stats) *stats.Counter { return &s.NotFoundAllowed }},
		{"may be one", "PROX", nil, false, filter.More, 0, nil},
		{"a bad one", "PROXY TCP4 1.2.3\r\n", nil, false, filter.Reject, 0, func(s *Stats) *stats.Counter { return &s.V1.Error }},
		{"none, required", "hello", nil, true, filter.Reject, 0, func(s *Stats) *stats.Counter { return &s.NotFoundDisallowed }},
		{"disallowed version", one, noV1, true, filter.Reject, 0, func(s *Stats) *stats.Counter { return &s.V1.Disallowed }},
		{"disallowed version is data", one, noV1, false, filter.Next, 0, func(s *Stats) *stats.Counter { return &s.NotFoundAllowed }},
		{"other version", v2header(0x21, 0x11, ipv4), noV1, true, filter.Next, 28, func(s *Stats) *stats.Counter { return &s.V2.Found }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := compile(t, &proxyprotocolv3.ProxyProtocol{
				AllowRequestsWithoutProxyProtocol: !c.required, DisallowedVersions: c.disallowed,
			})
			consume, v := f.Inspect([]byte(c.in), &stream.ConnInfo{})
			if v != c.verdict || consume != c.consume {
				t.Errorf("verdict %d, consume %d; want %d, %d", v, consume, c.verdict, c.consume)
			}
			if c.counted != nil && c.counted(f.stats).Value() != 1 {
				t.Error("not counted")
			}
		})
	}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*proxyprotocolv3.ProxyProtocol{
		"tlv_location": {TlvLocation: proxyprotocolv3.ProxyProtocol_FILTER_STATE},
		"tlv_type":     {Rules: []*proxyprotocolv3.ProxyProtocol_Rule{{TlvType: 256}}},
	} {
		if _, err := Compile(m, filter.ListenerContext{Scope: stats.New().Root()}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	store := stats.New()
	if _, err := Compile(&proxyprotocolv3.ProxyProtocol{StatPrefix: "pfx"}, filter.ListenerContext{Scope: store.Root()}); err != nil {
		t.Fatal(err)
	}
	found := false
	store.Each(false, func(s *stats.Sample) {
		found = found || bytes.Equal(s.Name, []byte("proxy_proto.pfx.versions.v1.found"))
	})
	if !found {
		t.Error("proxy_proto.pfx.versions.v1.found is missing")
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, passFields, fields, ruleFields, pairFields)
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2header(0x21, 0x11, ipv4+"\x02\x00\x03abc")))
	f.Add([]byte(v2header(0x20, 0, "")))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	x := compile(f, &proxyprotocolv3.ProxyProtocol{Rules: []*proxyprotocolv3.ProxyProtocol_Rule{
		{TlvType: 2, OnTlvPresent: &proxyprotocolv3.ProxyProtocol_KeyValuePair{Key: "k"}},
	}})
	f.Fuzz(func(t *testing.T, p []byte) {
		info := &stream.ConnInfo{}
		n, v := x.Inspect(p, info)
		if n < 0 || n > len(p) || (v != filter.Next && n != 0) {
			t.Fatalf("consume %d of %d with verdict %d", n, len(p), v)
		}
		if s, ok := info.Metadata[namespace]["k"].(string); ok && !utf8.ValidString(s) {
			t.Fatalf("metadata %q", s)
		}
		if _, again := x.Inspect(append(append([]byte(nil), p...), 0), &stream.ConnInfo{}); v != filter.More && again != v {
			t.Fatalf("verdict %d becomes %d with another byte", v, again)
		}
	})
}
