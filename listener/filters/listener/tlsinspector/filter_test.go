package tlsinspector

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"testing"

	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config/configtest"
)

// clientHello records what a real client sends first.
func clientHello(t testing.TB, sni string, alpn ...string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := tls.Client(client, &tls.Config{ServerName: sni, NextProtos: alpn, InsecureSkipVerify: true}) //nolint:gosec // no handshake is finished
	go c.HandshakeContext(ctx)                                                                        //nolint:errcheck // it is cut off
	defer server.Close()
	p := make([]byte, 4096)
	n, err := server.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

// fragment spreads a hello over records of size bytes.
func fragment(hello []byte, size int) []byte {
	var out []byte
	for msg := hello[recordHeader:]; len(msg) > 0; {
		n := min(size, len(msg))
		out = append(out, 22, 3, 1, byte(n>>8), byte(n))
		out = append(out, msg[:n]...)
		msg = msg[n:]
	}
	return out
}

func record(payload ...byte) []byte {
	out := []byte{22, 3, 1, 0, 0}
	binary.BigEndian.PutUint16(out[3:], uint16(len(payload)))
	return append(out, payload...)
}

func make1(t testing.TB, m *tlsinspectorv3.TlsInspector) *Filter {
	t.Helper()
	f, err := Compile(m, filter.ListenerContext{Scope: stats.New().Root()})
	if err != nil {
		t.Fatal(err)
	}
	return f.(*Filter)
}

func with(p []byte, at int, b byte) []byte {
	out := append([]byte(nil), p...)
	out[at] = b
	return out
}

func TestInspect(t *testing.T) {
	t.Parallel()
	plain := clientHello(t, "www.Example.com")
	both := clientHello(t, "www.example.com", "h2", "http/1.1")
	for _, c := range []struct {
		name      string
		in        []byte
		verdict   filter.Verdict
		transport string
		sni, alpn string
	}{
		{"server name, no protocols", plain, filter.Next, "tls", "www.example.com", ""},
		{"server name and protocols", both, filter.Next, "tls", "www.example.com", "h2,http/1.1"},
		{"neither", clientHello(t, ""), filter.Next, "tls", "", ""},
		{"spread over records", fragment(both, 40), filter.Next, "tls", "www.example.com", "h2,http/1.1"},
		{"a byte a record", fragment(both, 1), filter.Next, "tls", "www.example.com", "h2,http/1.1"},
		{"with what follows it", append(append([]byte(nil), both...), "more"...), filter.Next, "tls", "www.example.com", "h2,http/1.1"},
		{"SSL 3 record version", with(both, 2, 0), filter.Next, "tls", "www.example.com", "h2,http/1.1"},
		{"nothing", nil, filter.More, "", "", ""},
		{"one byte", both[:1], filter.More, "", "", ""},
		{"header only", both[:5], filter.More, "", "", ""},
		{"all but a byte", both[:len(both)-1], filter.More, "", "", ""},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), filter.Next, "", "", ""},
		{"one byte of HTTP", []byte("G"), filter.Next, "", "", ""},
		{"an alert", []byte("\x15\x03\x01\x00\x02\x02\x28"), filter.Next, "", "", ""},
		{"wrong major version", with(both, 1, 9), filter.Next, "", "", ""},
		{"another message", with(both, 5, 2), filter.Next, "", "", ""},
		{"empty record", record(), filter.Next, "", "", ""},
		{"record too long", []byte{22, 3, 1, 0x40, 1}, filter.Next, "", "", ""},
		{"message too long", record(1, 0, 0x4e, 0x20, 3, 3), filter.Next, "", "", ""},
		{"hello cut short", record(1, 0, 0, 4, 3, 3, 0, 0), filter.Next, "", "", ""},
		{"too old", record(append([]byte{1, 0, 0, 41, 3, 0}, append(make([]byte, 32), 0, 0, 2, 0, 1, 1, 0)...)...), filter.Next, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := make1(t, &tlsinspectorv3.TlsInspector{})
			info := &stream.ConnInfo{}
			consume, v := f.Inspect(c.in, info)
			if v != c.verdict || consume != 0 {
				t.Fatalf("verdict %d, consume %d; want %d and 0", v, consume, c.verdict)
			}
			if info.TransportProtocol != c.transport || info.SNI != c.sni || info.ALPN != c.alpn {
				t.Errorf("transport %q, SNI %q, ALPN %q; want %q, %q, %q",
					info.TransportProtocol, info.SNI, info.ALPN, c.transport, c.sni, c.alpn)
			}
			count := func(name string, c *stats.Counter, want bool) {
				if (c.Value() == 1) != want {
					t.Errorf("%s = %d, want it counted: %v", name, c.Value(), want)
				}
			}
			found := v == filter.Next && c.transport != ""
			count("tls_found", &f.stats.TLSFound, found)
			count("tls_not_found", &f.stats.TLSNotFound, v == filter.Next && !found)
			count("sni_found", &f.stats.SNIFound, c.sni != "")
			count("sni_not_found", &f.stats.SNINotFound, found && c.sni == "")
			count("alpn_found", &f.stats.ALPNFound, c.alpn != "")
			count("alpn_not_found", &f.stats.ALPNNotFound, found && c.alpn == "")
		})
	}
}

func TestInspect_Limits(t *testing.T) {
	t.Parallel()
	hello := clientHello(t, "a.test")
	f := make1(t, &tlsinspectorv3.TlsInspector{MaxClientHelloSize: wrapperspb.UInt32(256)})
	if _, v := f.Inspect(hello[:256], &stream.ConnInfo{}); len(hello) <= 256 || v != filter.Reject {
		t.Errorf("a hello of %d bytes with a limit of 256: verdict %d", len(hello), v)
	}
	if f.stats.TooLarge.Value() != 1 {
		t.Error("client_hello_too_large is not counted")
	}
	f = make1(t, &tlsinspectorv3.TlsInspector{})
	big := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc}, make([]byte, 20000)...)
	if _, v := f.Inspect(big, &stream.ConnInfo{}); v != filter.Reject {
		t.Errorf("16 KB without a whole hello: verdict %d", v)
	}
	f = make1(t, &tlsinspectorv3.TlsInspector{CloseConnectionOnClientHelloParsingErrors: true})
	if _, v := f.Inspect([]byte("GET /"), &stream.ConnInfo{}); v != filter.Reject {
		t.Errorf("plaintext with close_connection_on_client_hello_parsing_errors: verdict %d", v)
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields)
}

func FuzzParseHello(f *testing.F) {
	real := clientHello(f, "fuzz.test", "h2")
	f.Add(real)
	f.Add(fragment(real, 7))
	f.Add(real[:40])
	f.Add(clientHello(f, ""))
	f.Add(with(real, 43, 0xff))                   // a session id beyond the end
	f.Add([]byte{22, 3, 1, 0, 0})                 // an empty record
	f.Add([]byte{22, 3, 1, 0x40, 1})              // a record too long
	f.Add([]byte("\x15\x03\x01\x00\x02\x02\x28")) // an alert
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(record(1, 0, 0, 4, 3, 3, 0, 0))
	for _, h := range hellos(f) {
		f.Add(h.bytes)
		f.Add(h.bytes[:len(h.bytes)/2])
	}
	f.Add([]byte("\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80")) // SSL 2
	f.Fuzz(func(t *testing.T, p []byte) {
		h, n, s := parseHello(p)
		if n < 0 || n > len(p) {
			t.Fatalf("looked at %d bytes of %d", n, len(p))
		}
		if s != complete && h != (hello{}) {
			t.Fatalf("state %d with a result: %+v", s, h)
		}
		if body, _, _ := assemble(p); s == complete {
			if o := readOffer(body); len(o.ja3()) != 32 || len(o.ja4()) != 36 {
				t.Fatalf("fingerprints %q, %q", o.ja3(), o.ja4())
			}
		}
		// What was decided stays so, whatever follows; and it is decided at the byte it says.
		if _, _, again := parseHello(append(append([]byte(nil), p...), 0)); s != incomplete && again != s {
			t.Fatalf("state %d becomes %d with another byte", s, again)
		}
	})
}
