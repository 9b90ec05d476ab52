package grpcweb

import (
	"encoding/base64"
	"strings"
	"testing"

	"sidecar/api/stats"
	"sidecar/listener/filters/http/filtertest"
)

const (
	frames     = "\x00\x00\x00\x00\x03\x01\x02\x03\x00\x00\x00\x00\x01\x09"
	lastBinary = "\x80\x00\x00\x00\x16grpc-status:0\r\nx-t:v\r\n"
	// What Envoy 1.40 sent for the same response.
	asText = "AAAAAAMBAgM=AAAAAAEJgAAAABZncnBjLXN0YXR1czowDQp4LXQ6dg0K"
)

func start(t testing.TB, store *stats.Store) (*filtertest.Stream, *Filter) {
	t.Helper()
	factory, err := filtertest.Compile(t, Entry(), store, "{}")
	if err != nil {
		t.Fatal(err)
	}
	s := filtertest.NewStream()
	f, ok := factory.NewFilter(s).(*Filter)
	if !ok {
		t.Fatal("not the filter")
	}
	t.Cleanup(func() { s.Destroy(f) })
	return s, f
}

func TestRequest(t *testing.T) {
	t.Parallel()
	const head = ":method: POST\n:path: /s.A/m\n"
	for _, tt := range []struct {
		name, kind string
		chunks     []string
		body       string
		details    string
	}{
		{"binary", binary, []string{"a", "b"}, "ab", ""},
		{"text", text, []string{"AAAAAAJoaQ=="}, "\x00\x00\x00\x00\x02hi", ""},
		{"text in pieces", textProto, []string{"A", "AAAA", "AJ", "oa", "Q=="}, "\x00\x00\x00\x00\x02hi", ""},
		{"nothing", text, []string{""}, "", ""},
		{"a bad size", text, []string{"AAAAAAJoaQ="}, "", "grpc_base64_decode_failed_bad_size"},
		{"bad text", text, []string{"AA!AAAJoaQ=="}, "", "grpc_base64_decode_failed"},
		{"a line break", text, []string{"AAA\nAAAJoaQ="}, "", "grpc_base64_decode_failed"},
		{"another type", "application/json", []string{"{}"}, "{}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, f := start(t, stats.New())
			h := filtertest.Fields(":method: POST", ":path: /s.A/m", "content-type: "+tt.kind, "content-length: 9")
			body := s.Request(f, h, tt.chunks, nil)
			if tt.details != "" {
				if s.Replied == nil || s.Replied.Status != 400 ||
					strings.ReplaceAll(s.Replied.Details, "base_64", "base64") != tt.details {
					t.Fatalf("replied %+v", s.Replied)
				}
				return
			}
			if body != tt.body {
				t.Errorf("body %q, want %q", body, tt.body)
			}
			want := head + "content-type: application/grpc\nte: trailers\ngrpc-accept-encoding: identity\n"
			if tt.kind == "application/json" {
				want = head + "content-type: application/json\ncontent-length: 9\n"
			}
			if got := filtertest.Text(h); got != want {
				t.Errorf("head\n%s", got)
			}
		})
	}
}

func TestResponse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, accept, head, body string
		trailers                 []string
		wantHead, wantBody       string
	}{
		{
			"binary", "", ":status: 200\ncontent-type: application/grpc", frames,
			[]string{"grpc-status: 0", "x-t: v"},
			":status: 200\ncontent-type: application/grpc-web+proto\n", frames + lastBinary,
		},
		{
			"text", text, ":status: 200\ncontent-type: application/grpc", frames,
			[]string{"grpc-status: 0", "x-t: v"},
			":status: 200\ncontent-type: application/grpc-web-text+proto\n", asText,
		},
		{
			"trailers only", "", ":status: 200\ncontent-type: application/grpc\ngrpc-status: 5", "", nil,
			":status: 200\ncontent-type: application/grpc-web+proto\ngrpc-status: 5\n", "",
		},
		{
			"a proxy's error", text, ":status: 500\ncontent-type: text/plain\ncontent-length: 6", "oh no\n", nil,
			":status: 500\ncontent-type: application/grpc-web-text+proto\ncontent-length: 0\n" +
				"grpc-status: 2\ngrpc-message: oh no%0A\n", "",
		},
		{
			"no gRPC", "", ":status: 200\ncontent-type: text/html", "<hi>", nil,
			":status: 200\ncontent-type: application/grpc-web+proto\ngrpc-status: 2\ngrpc-message: <hi>\n" +
				"content-length: 0\n", "",
		},
		{
			"no body", "", ":status: 404", "", nil,
			":status: 404\ncontent-type: application/grpc-web+proto\ngrpc-status: 12\ncontent-length: 0\n", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for size := 1; size <= len(tt.body)+1; size++ {
				s, f := start(t, stats.New())
				s.Request(f, filtertest.Fields(":path: /s.A/m", "content-type: "+binary, "accept: "+tt.accept), nil, nil)
				h := filtertest.Fields(strings.Split(tt.head, "\n")...)
				trailers := filtertest.Fields(tt.trailers...)
				if tt.trailers == nil {
					trailers = nil
				}
				body := s.Response(f, h, pieces(tt.body, size), trailers)
				if body != tt.wantBody {
					t.Fatalf("pieces of %d: body %q, want %q", size, body, tt.wantBody)
				}
				if got := filtertest.Text(h); got != tt.wantHead {
					t.Fatalf("pieces of %d: head\n%s", size, got)
				}
				if trailers != nil && trailers.Len() > 0 {
					t.Fatal("the trailers are still there")
				}
			}
		})
	}
}

func pieces(s string, n int) []string {
	var out []string
	for s != "" {
		k := min(n, len(s))
		out, s = append(out, s[:k]), s[k:]
	}
	return out
}

func TestLongMessage(t *testing.T) {
	t.Parallel()
	s, f := start(t, stats.New())
	s.Request(f, filtertest.Fields(":path: /s.A/m", "content-type: "+binary), nil, nil)
	h := filtertest.Fields(":status: 503")
	s.Response(f, h, []string{strings.Repeat("x", 10<<10), strings.Repeat("y", 10<<10)}, nil)
	if got := len(h.Value(0)) + len(filtertest.Text(h)); got > maxMessage+200 || got < maxMessage {
		t.Errorf("%d bytes", got)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	store := stats.New()
	s, f := start(t, store)
	s.Request(f, filtertest.Fields(":path: /s.A/m?x", "content-type: "+binary), nil, nil)
	s.Response(f, filtertest.Fields(":status: 200", "content-type: application/grpc"), []string{frames},
		filtertest.Fields("grpc-status: 7"))
	for name, want := range map[string]uint64{"7": 1, "failure": 1, "total": 1, "success": 0} {
		if got := store.Scope("cluster.c.grpc-web.s.A.m").Counter(name).Value(); got != want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// FuzzText decodes what another decoder takes, in pieces of any size.
func FuzzText(f *testing.F) {
	f.Add("AAAAAAJoaQ==", uint8(3))
	f.Add("====", uint8(1))
	f.Add("AA\nA", uint8(2))
	f.Fuzz(func(t *testing.T, body string, size uint8) {
		s, flt := start(t, stats.New())
		got := s.Request(flt, filtertest.Fields(":path: /s/m", "content-type: "+text), pieces(body, int(size)+1), nil)
		want, err := base64.StdEncoding.Strict().DecodeString(body)
		switch {
		case s.Replied == nil && (err != nil || string(want) != got):
			t.Errorf("%q: %q, want %q, %v", body, got, want, err)
		case s.Replied != nil && err == nil && !strings.ContainsAny(body, "\r\n"):
			t.Errorf("%q: refused", body)
		}
	})
}
