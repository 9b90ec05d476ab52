package httpinspector

import (
	"strings"
	"testing"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
)

// TestInspect holds the answers of Envoy 1.40, asked with a chain for each protocol.
func TestInspect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in string
		verdict  filter.Verdict
		want     string
	}{
		{"HTTP/1.1", "GET / HTTP/1.1\r\n\r\n", filter.Next, http11},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n", filter.Next, http10},
		{"HTTP/0.9 without a version", "GET /\r\n", filter.Next, http10},
		{"HTTP/0.9", "GET / HTTP/0.9\r\n", filter.Next, http10},
		{"HTTP/1.2", "GET / HTTP/1.2\r\n", filter.Next, http10},
		{"HTTP/2.0 without a preface", "GET / HTTP/2.0\r\n", filter.Next, http10},
		{"unknown method", "FOO / HTTP/1.1\r\n", filter.Next, http11},
		{"method in lower case", "foo / HTTP/1.1\r\n", filter.Next, http11},
		{"CONNECT", "CONNECT a:1 HTTP/1.1\r\n", filter.Next, http11},
		{"bare LF", "GET / HTTP/1.1\n", filter.Next, http11},
		{"many blanks", "GET  /  HTTP/1.1\r\n", filter.Next, http11},
		{"preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", filter.Next, http2},
		{"nearly a preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", filter.Next, http10},
		{"part of a preface", "PRI", filter.More, ""},
		{"no end of line", "GET / HTTP/1.1", filter.More, ""},
		{"part of a method", "G", filter.More, ""},
		{"nothing", "", filter.More, ""},
		{"a word", "hello", filter.More, ""},
		{"prose", "hello world this is not http\r\n", filter.Next, ""},
		{"three words", "A B C\r\n", filter.Next, ""},
		{"something behind the version", "GET / HTTP/1.1 x\r\n", filter.Next, ""},
		{"no method", "@#! / HTTP/1.1\r\n", filter.Next, ""},
		{"empty line first", "\r\nGET / HTTP/1.1\r\n", filter.Next, ""},
		{"blank first", " GET / HTTP/1.1\r\n", filter.Next, ""},
		{"TLS", "\x16\x03\x01", filter.Next, ""},
		{"line too long", "GET " + strings.Repeat("a", 9000) + " HTTP/1.1\r\n", filter.Next, ""},
		{"line without end", "GET " + strings.Repeat("a", 70000), filter.Reject, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			made, err := Compile(nil, filter.ListenerContext{Scope: stats.New().Root()})
			if err != nil {
				t.Fatal(err)
			}
			f := made.(*Filter)
			info := &stream.ConnInfo{}
			consume, v := f.Inspect([]byte(c.in), info)
			if consume != 0 || v != c.verdict || info.ALPN != c.want {
				t.Fatalf("consume %d, verdict %d, protocol %q; want 0, %d, %q", consume, v, info.ALPN, c.verdict, c.want)
			}
			for name, got := range map[string]struct {
				n    uint64
				want bool
			}{
				"http10_found":   {f.stats.HTTP10.Value(), c.want == http10},
				"http11_found":   {f.stats.HTTP11.Value(), c.want == http11},
				"http2_found":    {f.stats.HTTP2.Value(), c.want == http2},
				"http_not_found": {f.stats.NotFound.Value(), v == filter.Next && c.want == ""},
				"read_error":     {f.stats.ReadError.Value(), v == filter.Reject},
			} {
				if (got.n == 1) != got.want {
					t.Errorf("%s = %d, want it counted: %v", name, got.n, got.want)
				}
			}
		})
	}
}

func TestOnAccept_TLSIsLeftAlone(t *testing.T) {
	t.Parallel()
	f := &Filter{}
	if f.OnAccept(nil, &stream.ConnInfo{TransportProtocol: "tls"}) {
		t.Error("looks into TLS")
	}
	if !f.OnAccept(nil, &stream.ConnInfo{TransportProtocol: "raw_buffer"}) {
		t.Error("does not look into plaintext")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", preface, "PRI * HTTP/2.0\r\n\r\nXX", "G", "A B C\n", "\x16\x03"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		protocol, decided := parse(p)
		if !decided && protocol != "" {
			t.Fatalf("undecided, and %q", protocol)
		}
		// More bytes never change what was decided.
		if again, still := parse(append(append([]byte(nil), p...), "x\n"...)); decided && (!still || again != protocol) {
			t.Fatalf("%q becomes %q with more bytes", protocol, again)
		}
	})
}
