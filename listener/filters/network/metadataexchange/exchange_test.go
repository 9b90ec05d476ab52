package metadataexchange

import (
	"encoding/binary"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/filter"
	exchangepb "sidecar/api/sidecar/istio/exchange"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config/configtest"
	"sidecar/internal/workload"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields)
}

func compile(tb testing.TB, store *stats.Store) *Config {
	tb.Helper()
	node, err := structpb.NewStruct(map[string]any{
		"NAME": "pod", "NAMESPACE": "ns", "WORKLOAD_NAME": "w", "CLUSTER_ID": "k",
		"LABELS": map[string]any{"app": "a", "version": "v1", "team": "t", "other": "o"},
	})
	if err != nil {
		tb.Fatal(err)
	}
	c, err := Compile(&exchangepb.MetadataExchange{Protocol: "istio-peer-exchange", AdditionalLabels: []string{"team"}},
		store.Root(), Env{NodeID: "id", Node: node})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// peer makes the filter of a connection that has agreed on the protocol.
func peer(tb testing.TB, c *Config) (*Filter, *stream.ConnInfo) {
	tb.Helper()
	info := &stream.ConnInfo{TLS: &stream.TLSInfo{ALPN: "istio-peer-exchange"}}
	f, ok := c.NewNetworkFilter(&filter.Connection{Info: info}).(*Filter)
	if !ok {
		tb.Fatal("there is no filter")
	}
	return f, info
}

// read passes p in pieces of n and returns what comes through.
func read(f *Filter, p []byte, n int) (through []byte) {
	again := true
	for len(p) > 0 {
		piece := p[:min(n, len(p))]
		p = p[len(piece):]
		var b buf.Buffer
		b.Append(piece)
		if again {
			again = f.OnRead(&b, len(p) == 0)
		}
		through = append(through, b.Bytes()...)
		b.Reset()
	}
	return through
}

// TestExchange reads what another one has written, in pieces of every size.
func TestExchange(t *testing.T) {
	t.Parallel()
	c := compile(t, stats.New())
	p := append(append([]byte(nil), c.preface...), "rest"...)
	for n := 1; n <= len(p); n++ {
		f, info := peer(t, c)
		if got := read(f, p, n); string(got) != "rest" {
			t.Fatalf("pieces of %d: %q came through", n, got)
		}
		w := workload.Of(info.FilterState, workload.Downstream)
		if w == nil {
			t.Fatalf("pieces of %d: no peer", n)
		}
		if w.Name != "w" || w.Namespace != "ns" || w.Instance != "pod" || w.Cluster != "k" || w.App != "a" ||
			w.Version != "v1" || w.Labels["team"] != "t" || w.Labels["other"] != "" {
			t.Errorf("pieces of %d: %+v", n, w)
		}
	}
}

// TestStrangers lets the bytes of a peer that does not introduce itself through.
func TestStrangers(t *testing.T) {
	t.Parallel()
	frame := func(size int, body string) []byte {
		b := binary.BigEndian.AppendUint32(nil, magic)
		b = binary.BigEndian.AppendUint32(b, uint32(size))
		return append(b, body...)
	}
	for _, tc := range []struct {
		name, through, stat string
		sent                []byte
	}{
		{"another protocol", "GET / HTTP/1.1\r\n", "initial_header_not_found", []byte("GET / HTTP/1.1\r\n")},
		{"short", "GET", "", []byte("GET")},
		{"too large", string(frame(maxSize+1, "x")), "initial_header_not_found", frame(maxSize+1, "x")},
		{"no message", "rest", "header_not_found", frame(3, "\xff\xff\xffrest")},
		{"cut", string(frame(100, "x")), "", frame(100, "x")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			store := stats.New()
			f, info := peer(t, compile(t, store))
			if got := read(f, tc.sent, 5); string(got) != tc.through {
				t.Errorf("%q came through", got)
			}
			if workload.Of(info.FilterState, workload.Downstream) != nil || !workload.Known(info.FilterState, workload.Downstream) {
				t.Error("the peer is known, or may still become so")
			}
			if tc.stat != "" && store.Scope("metadata_exchange").Counter(tc.stat).Value() != 1 {
				t.Errorf("%s is not counted", tc.stat)
			}
		})
	}
}

// TestOtherProtocol has no filter on connections without the protocol.
func TestOtherProtocol(t *testing.T) {
	t.Parallel()
	store := stats.New()
	c := compile(t, store)
	for _, tls := range []*stream.TLSInfo{nil, {ALPN: "h2"}} {
		if f := c.NewNetworkFilter(&filter.Connection{Info: &stream.ConnInfo{TLS: tls}}); f != nil {
			t.Errorf("a filter for %+v", tls)
		}
	}
	if n := store.Scope("metadata_exchange").Counter("alpn_protocol_not_found").Value(); n != 2 {
		t.Errorf("alpn_protocol_not_found: %d", n)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	if _, err := Compile(&exchangepb.MetadataExchange{}, stats.New().Root(), Env{}); err == nil {
		t.Error("a filter without a protocol is accepted")
	}
}

func FuzzRead(f *testing.F) {
	c := compile(f, stats.New())
	f.Add(c.preface, uint8(7))
	f.Add([]byte("\x3d\x23\x04\x67\x00\x00\x00\x01x"), uint8(1))
	f.Fuzz(func(t *testing.T, p []byte, n uint8) {
		x, info := peer(t, c)
		if got := read(x, p, int(n)+1); len(got) > len(p) {
			t.Errorf("%d bytes became %d", len(p), len(got))
		}
		if len(p) > 0 && !workload.Known(info.FilterState, workload.Downstream) {
			t.Error("it is not settled who the peer is")
		}
	})
}
