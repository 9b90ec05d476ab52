package h2

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/header"
	"sidecar/internal/codec/hpack"
)

// fieldList makes a block of lines "name=value"; a name may begin with a colon.
func fieldList(lines ...string) []byte {
	var e hpack.Encoder
	e.Init()
	var b []byte
	for _, l := range lines {
		i := strings.IndexByte(l[1:], '=') + 1
		b = e.Append(b, header.Lookup(l[:i]), l[:i], l[i+1:])
	}
	return b
}

func fieldsOf(m *header.Map) []string {
	var out []string
	for i := range m.Len() {
		n, v := m.At(i)
		out = append(out, n+"="+v)
	}
	return out
}

func readFields(t *testing.T, kind fieldKind, o *Options, s *ServerOptions, block []byte) (*fieldReader, *problem) {
	t.Helper()
	var d hpack.Decoder
	d.Init(4096)
	var r fieldReader
	r.begin(kind, o.withDefaults(kind >= responseHead), s, new(header.Map))
	if err := d.Decode(block, &r); err != nil {
		t.Fatal(err)
	}
	return &r, r.finish()
}

func request(more ...string) []string {
	return append([]string{":method=GET", ":scheme=http", ":path=/", ":authority=a"}, more...)
}

func connectTo(more ...string) []string {
	return append([]string{":method=CONNECT", ":scheme=http", ":path=/", ":authority=a"}, more...)
}

// What Envoy 1.40 answers to the same requests.
func TestRequestFields(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("v", 15000)
	for _, tc := range []struct {
		name   string
		fields []string
		want   string // details; "" is taken
	}{
		{"plain", request(), ""},
		{"upper case", request("Abc=d"), invalidField},
		{"upper case in a known name", request("Accept=d"), invalidField},
		{"no method", []string{":scheme=http", ":path=/", ":authority=a"}, messagingRule},
		{"no scheme", []string{":method=GET", ":path=/", ":authority=a"}, messagingRule},
		{"no path", []string{":method=GET", ":scheme=http", ":authority=a"}, messagingRule},
		{"no authority", []string{":method=GET", ":scheme=http", ":path=/"}, messagingRule},
		{"host", []string{":method=GET", ":scheme=http", ":path=/", "host=h"}, ""},
		{"host beside authority", request("host=h"), ""},
		{"host twice", request("host=h", "host=h"), invalidField},
		{"host empty", request("host="), invalidField},
		{"host malformed", request("host=a/b"), invalidField},
		{"nothing", nil, messagingRule},
		{"method twice", request(":method=GET"), invalidField},
		{"path twice", request(":path=/"), invalidField},
		{"pseudo-header after another", []string{":method=GET", ":scheme=http", ":authority=a", "x=y", ":path=/"}, invalidField},
		{"unknown pseudo-header", request(":foo=b"), invalidField},
		{"status", request(":status=200"), invalidField},
		{"protocol of GET", request(":protocol=websocket"), messagingRule},
		{"extended CONNECT", connectTo(":protocol=websocket"), ""},
		{"extended CONNECT, no path", []string{":method=CONNECT", ":scheme=http", ":authority=a", ":protocol=w"}, messagingRule},
		{"extended CONNECT, no scheme", []string{":method=CONNECT", ":path=/", ":authority=a", ":protocol=w"}, messagingRule},
		{"extended CONNECT, host", []string{":method=CONNECT", ":scheme=http", ":path=/", ":protocol=w", "host=h"}, messagingRule},
		{"extended CONNECT, empty", connectTo(":protocol="), invalidField},
		{"CONNECT", []string{":method=CONNECT", ":authority=a:80"}, ""},
		{"CONNECT nowhere", []string{":method=CONNECT"}, messagingRule},
		{"CONNECT with a path", []string{":method=CONNECT", ":authority=a:80", ":path=/"}, messagingRule},
		{"CONNECT with a scheme", []string{":method=CONNECT", ":authority=a:80", ":scheme=http"}, messagingRule},
		{"CONNECT with both", connectTo(), messagingRule},
		{"path empty", []string{":method=GET", ":scheme=http", ":path=", ":authority=a"}, invalidField},
		{"path without slash", []string{":method=GET", ":scheme=http", ":path=abc", ":authority=a"}, messagingRule},
		{"path without slash, other scheme", []string{":method=GET", ":scheme=ftp", ":path=abc", ":authority=a"}, ""},
		{"asterisk", []string{":method=OPTIONS", ":scheme=http", ":path=*", ":authority=a"}, ""},
		{"asterisk of GET", []string{":method=GET", ":scheme=HTTP", ":path=*", ":authority=a"}, messagingRule},
		{"path with a space", []string{":method=GET", ":scheme=http", ":path=/a b", ":authority=a"}, invalidField},
		{"path with DEL", []string{":method=GET", ":scheme=http", ":path=/\x7f", ":authority=a"}, invalidField},
		{"path with a control", []string{":method=GET", ":scheme=http", ":path=/\x01", ":authority=a"}, invalidField},
		{"path beyond ASCII", []string{":method=GET", ":scheme=http", ":path=/\xc3\xa9#", ":authority=a"}, ""},
		{"method empty", []string{":method=", ":scheme=http", ":path=/", ":authority=a"}, invalidField},
		{"method no token", []string{":method=G T", ":scheme=http", ":path=/", ":authority=a"}, invalidField},
		{"method unknown", []string{":method=Foo", ":scheme=http", ":path=/", ":authority=a"}, ""},
		{"scheme empty", []string{":method=GET", ":scheme=", ":path=/", ":authority=a"}, invalidField},
		{"scheme malformed", []string{":method=GET", ":scheme=1h", ":path=/", ":authority=a"}, invalidField},
		{"scheme other", []string{":method=GET", ":scheme=h+1", ":path=/", ":authority=a"}, ""},
		{"authority empty", []string{":method=GET", ":scheme=http", ":path=/", ":authority="}, invalidField},
		{"authority with user", []string{":method=GET", ":scheme=http", ":path=/", ":authority=u@b"}, invalidField},
		{"authority with slash", []string{":method=GET", ":scheme=http", ":path=/", ":authority=a/b"}, invalidField},
		{"connection", request("connection=close"), invalidField},
		{"keep-alive", request("keep-alive=1"), invalidField},
		{"proxy-connection", request("proxy-connection=close"), invalidField},
		{"transfer-encoding", request("transfer-encoding=chunked"), invalidField},
		{"upgrade", request("upgrade=h2c"), invalidField},
		{"http2-settings", request("http2-settings=a"), ""},
		{"te trailers", request("te=trailers"), ""},
		{"te Trailers", request("te=Trailers"), ""},
		{"te gzip", request("te=gzip"), invalidField},
		{"te more", request("te=trailers, gzip"), invalidField},
		{"te empty", request("te="), invalidField},
		{"name with space", request("a b=c"), invalidField},
		{"name with at", request("a@b=c"), invalidField},
		{"name beyond ASCII", request("\xc3\xa9=c"), invalidField},
		{"value with NUL", request("x=\x00"), invalidField},
		{"value with CR", request("x=a\rb"), invalidField},
		{"value with LF", request("accept=a\nb"), invalidField},
		{"value with DEL", request("x=a\x7f"), invalidField},
		{"value with tab", request("x=a\tb"), ""},
		{"value beyond ASCII", request("x=\xc3\xa9"), ""},
		{"value with space around", request("x= b "), ""},
		{"content-length 0", request("content-length=0"), ""},
		{"content-length no number", request("content-length=a"), invalidField},
		{"content-length signed", request("content-length=+1"), invalidField},
		{"content-length empty", request("content-length="), invalidField},
		{"content-length twice", request("content-length=0", "content-length=0"), invalidField},
		{"content-length list", request("content-length=0, 0"), invalidField},
		{"content-length huge", request("content-length=9223372036854775808"), invalidField},
		{"content-length largest", request("content-length=9223372036854775807"), ""},
		{"100 fields", request(many(96)...), ""},
		{"101 fields", request(many(97)...), tooManyHeaders},
		{"45 KB", request("a="+big, "b="+big, "c="+big), ""},
		{"75 KB", request("a="+big, "b="+big, "c="+big, "d="+big, "e="+big), listTooLarge},
		{"75 KB of cookies", request("cookie="+big, "cookie="+big, "cookie="+big, "cookie="+big, "cookie="+big), listTooLarge},
		{"underscore", request("a_b=c"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := new(Options)
			o.AllowConnect = true
			_, p := readFields(t, requestHead, o, new(ServerOptions), fieldList(tc.fields...))
			if got := detailsOf(p); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func many(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("h%d=v", i))
	}
	return out
}

func detailsOf(p *problem) string {
	if p == nil {
		return ""
	}
	return p.details
}

func TestFieldOptions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		set    func(*ServerOptions)
		fields []string
		want   string
		reset  bool
	}{
		{"extended CONNECT off", func(*ServerOptions) {}, connectTo(":protocol=w"), invalidField, false},
		{"reject underscores", func(s *ServerOptions) { s.RejectUnderscores = true }, request("a_b=c"), underscore, true},
		{"reject obs-text", func(s *ServerOptions) { s.RejectObsText = true }, request("x=\x80"), invalidField, false},
		{"field size", func(s *ServerOptions) { s.MaxFieldSize = 10 }, request("x=0123456789"), listTooLarge, true},
		{"fields", func(s *ServerOptions) { s.MaxHeaders = 4 }, request("cookie=a"), tooManyHeaders, true},
		{"size", func(s *ServerOptions) { s.MaxHeadersBytes = 36 }, request("x=y"), listTooLarge, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := new(ServerOptions)
			s.HTTP2.StreamWindow = 1 << 16 // no defaults
			tc.set(s)
			_, p := readFields(t, requestHead, &s.Options, s, fieldList(tc.fields...))
			if p == nil || p.details != tc.want || p.reset != tc.reset {
				t.Errorf("got %+v, want %q, reset %v", p, tc.want, tc.reset)
			}
		})
	}
}

func TestDropUnderscores(t *testing.T) {
	t.Parallel()
	s := &ServerOptions{DropUnderscores: true}
	s.Stats = new(Stats)
	r, p := readFields(t, requestHead, &s.Options, s, fieldList(request("a_b=c", "d=e")...))
	if p != nil {
		t.Fatal(p.details)
	}
	if diff := cmp.Diff(request("d=e"), fieldsOf(r.m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := s.Stats.DroppedUnderscores.Value(); n != 1 {
		t.Errorf("dropped %d", n)
	}
}

func TestFieldsRead(t *testing.T) {
	t.Parallel()
	o := new(Options)
	o.AllowConnect = true
	r, p := readFields(t, requestHead, o, new(ServerOptions), fieldList(
		":method=HEAD", ":scheme=http", ":path=/", "cookie=a=b", "host=h", "cookie=c=d", "expect=100-Continue",
		"content-length=7", "accept=a", "accept=b"))
	if p != nil {
		t.Fatal(p.details)
	}
	want := []string{
		":method=HEAD", ":scheme=http", ":path=/", ":authority=h", "expect=100-Continue", "content-length=7",
		"accept=a,b", "cookie=a=b; c=d",
	}
	if diff := cmp.Diff(want, fieldsOf(r.m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r.length != 7 || !r.isHead || !r.expect || r.connect || r.extended {
		t.Errorf("length %d, HEAD %v, expect %v, CONNECT %v %v", r.length, r.isHead, r.expect, r.connect, r.extended)
	}
	if r, p = readFields(t, requestHead, o, new(ServerOptions), fieldList(connectTo(":protocol=w")...)); p != nil ||
		r.connect || !r.extended {
		t.Errorf("extended CONNECT: %v, %v %v", p, r.connect, r.extended)
	}
	r, p = readFields(t, requestHead, o, new(ServerOptions), fieldList(":method=CONNECT", ":authority=a", "content-length=7"))
	if p != nil || !r.connect || r.extended || r.length != -1 {
		t.Errorf("CONNECT: %v, %v %v, length %d", p, r.connect, r.extended, r.length)
	}
}

func TestResponseFields(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, fields, want string
		length             int64
	}{
		{"plain", ":status=200|content-length=5", "", 5},
		{"no status", "x=y", messagingRule, -1},
		{"status twice", ":status=200|:status=200", invalidField, -1},
		{"status short", ":status=20", invalidField, -1},
		{"status long", ":status=2000", invalidField, -1},
		{"status below 100", ":status=099", invalidField, -1},
		{"status no number", ":status=20x", invalidField, -1},
		{"101", ":status=101", invalidField, -1},
		{"path", ":status=200|:path=/", invalidField, -1},
		{"interim", ":status=103|link=a", "", -1},
		{"interim with a length", ":status=100|content-length=0", invalidField, -1},
		{"204 with length 0", ":status=204|content-length=0", "", -1},
		{"204 with a length", ":status=204|content-length=1", invalidField, -1},
		{"connection", ":status=200|connection=close", invalidField, -1},
		{"host", ":status=200|host=a|cookie=a|cookie=b", "", -1},
		{"underscore", ":status=200|a_b=c", "", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, p := readFields(t, responseHead, new(Options), nil, fieldList(strings.Split(tc.fields, "|")...))
			if got := detailsOf(p); got != tc.want || r.length != tc.length && p == nil {
				t.Errorf("got %q, length %d; want %q, %d", got, r.length, tc.want, tc.length)
			}
		})
	}
}

func TestTrailerFields(t *testing.T) {
	t.Parallel()
	for _, kind := range []fieldKind{requestTrailers, responseTrailers} {
		for _, tc := range []struct{ name, field, want string }{
			{"plain", "grpc-status=0", ""},
			{"pseudo-header", ":path=/", invalidField},
			{"connection", "connection=close", invalidField},
			{"upper case", "A=b", invalidField},
		} {
			t.Run(fmt.Sprint(kind, " ", tc.name), func(t *testing.T) {
				t.Parallel()
				if _, p := readFields(t, kind, new(Options), nil, fieldList(tc.field)); detailsOf(p) != tc.want {
					t.Errorf("got %q, want %q", detailsOf(p), tc.want)
				}
			})
		}
	}
}

// FuzzFields: no block breaks the reader, and what it takes keeps the rules that the rest of the proxy
// stands on.
func FuzzFields(f *testing.F) {
	for _, kind := range []fieldKind{requestHead, requestTrailers, responseHead, responseTrailers} {
		f.Add(uint8(kind), fieldList(request("cookie=a", "cookie=b", "host=h", "content-length=3")...))
		f.Add(uint8(kind), fieldList(connectTo(":protocol=websocket")...))
		f.Add(uint8(kind), fieldList(":method=CONNECT", ":authority=a:80"))
		f.Add(uint8(kind), fieldList(":status=204", "content-length=0", "te=trailers"))
		f.Add(uint8(kind), fieldList("grpc-status=0", "a_b=c", "connection=close"))
	}
	f.Fuzz(func(t *testing.T, kind uint8, block []byte) {
		k := fieldKind(kind & 3)
		o := new(Options)
		o.AllowConnect = true
		o = o.withDefaults(k >= responseHead)
		var s *ServerOptions
		if k < responseHead {
			s = new(ServerOptions)
		}
		var d hpack.Decoder
		d.Init(4096)
		var r fieldReader
		var m header.Map
		r.begin(k, o, s, &m)
		if d.Decode(block, &r) != nil || r.finish() != nil {
			return
		}
		if m.Len() > o.MaxHeaders || m.Bytes() > o.MaxHeadersBytes {
			t.Errorf("%d fields of %d bytes", m.Len(), m.Bytes())
		}
		for i := range m.Len() {
			name, value := m.At(i)
			if strings.ContainsAny(value, "\r\n\x00") || strings.ToLower(name) != name && !strings.HasPrefix(name, ":") {
				t.Errorf("took %q: %q", name, value)
			}
			switch m.IDAt(i) {
			case header.Connection, header.TransferEncoding, header.Upgrade, header.KeepAlive, header.ProxyConnection:
				t.Errorf("took %q", name)
			}
		}
	})
}
