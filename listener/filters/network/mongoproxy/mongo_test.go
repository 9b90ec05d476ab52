package mongoproxy

import (
	"encoding/binary"
	"testing"

	mongov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/mongo_proxy/v3"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/buf"
	"sidecar/internal/config/configtest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields)
}

// message is one of the wire protocol with a body of n zero bytes behind the flags.
func message(id, to, op, flags int32, n int) []byte {
	b := make([]byte, headerSize+4+n)
	for i, v := range []int32{int32(len(b)), id, to, op, flags} {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(v))
	}
	return b
}

func compile(tb testing.TB, store *stats.Store) *Config {
	tb.Helper()
	made, err := Entry().Compile(&mongov3.MongoProxy{StatPrefix: "m"}, filter.NetworkContext{Scope: store.Root()})
	if err != nil {
		tb.Fatal(err)
	}
	c, ok := made.(*Config)
	if !ok {
		tb.Fatalf("%T", made)
	}
	return c
}

func newFilter(tb testing.TB, c *Config) *Filter {
	tb.Helper()
	f, ok := c.NewNetworkFilter(nil).(*Filter)
	if !ok {
		tb.Fatal("is another filter")
	}
	return f
}

// feed passes the bytes in pieces of n and expects them unchanged.
func feed(tb testing.TB, tap func(*buf.Buffer) bool, p []byte, n int) (again bool) {
	tb.Helper()
	for again = true; len(p) > 0 && again; {
		piece := p[:min(n, len(p))]
		p = p[len(piece):]
		var b buf.Buffer
		b.Append(piece)
		again = tap(&b)
		if string(b.Bytes()) != string(piece) {
			tb.Fatal("the filter has changed the data")
		}
		b.Reset()
	}
	return again
}

// TestCounts cuts the same messages into pieces of every size.
func TestCounts(t *testing.T) {
	t.Parallel()
	var up, down []byte
	up = append(up, message(1, 0, opQuery, 1<<1|1<<4|1<<5|1<<6, 40)...)
	up = append(up, message(2, 0, opInsert, 0, 9)...)
	up = append(up, message(3, 0, opGetMore, 0, 0)...)
	up = append(up, message(4, 0, opKillCursors, 0, 3)...)
	up = append(up, message(5, 0, opCommand, 0, 100)...)
	up = append(up, message(6, 0, opQuery, 0, 8)...)
	reply := message(7, 1, opReply, 1|2, 30)
	reply[headerSize+4] = 1 // a cursor
	down = append(append(down, reply...), message(8, 5, opCommandReply, 0, 0)...)
	for n := 1; n <= len(up); n++ {
		store := stats.New()
		f := newFilter(t, compile(t, store))
		if !feed(t, func(b *buf.Buffer) bool { return f.OnRead(b, false) }, up, n) || !feed(t, f.OnWrite, down, n) {
			t.Fatalf("pieces of %d: is no MongoDB", n)
		}
		scope := store.Scope("mongo.m")
		for name, want := range map[string]uint64{
			"op_query": 2, "op_query_tailable_cursor": 1, "op_query_no_cursor_timeout": 1, "op_query_await_data": 1,
			"op_query_exhaust": 1, "op_insert": 1, "op_get_more": 1, "op_kill_cursors": 1, "op_command": 1,
			"op_command_reply": 1, "op_reply": 1, "op_reply_cursor_not_found": 1, "op_reply_query_failure": 1,
			"op_reply_valid_cursor": 1, "decoding_error": 0,
		} {
			if got := scope.Counter(name).Value(); got != want {
				t.Errorf("pieces of %d: %s is %d, want %d", n, name, got, want)
			}
		}
		active := scope.Gauge("op_query_active")
		if active.Value() != 1 {
			t.Errorf("pieces of %d: %d queries are active", n, active.Value())
		}
		f.OnConnectionEnd(nil)
		if active.Value() != 0 || scope.Counter("cx_destroy_remote_with_active_rq").Value() != 1 {
			t.Errorf("pieces of %d: %d queries are active after the end", n, active.Value())
		}
	}
}

// TestOther leaves what is no MongoDB alone, after counting that once.
func TestOther(t *testing.T) {
	t.Parallel()
	for name, p := range map[string][]byte{
		"HTTP":         []byte("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
		"size":         {8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xd4, 7, 0, 0},
		"an operation": message(1, 0, 77, 0, 0),
		"negative":     {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0xd4, 7, 0, 0},
		"huge":         {0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0xd4, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		store := stats.New()
		f := newFilter(t, compile(t, store))
		p = append(p, make([]byte, 64)...)
		if feed(t, func(b *buf.Buffer) bool { return f.OnRead(b, false) }, p, len(p)) {
			t.Errorf("%s: is MongoDB", name)
		}
		if n := store.Scope("mongo.m").Counter("decoding_error").Value(); n != 1 {
			t.Errorf("%s: %d errors", name, n)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(message(1, 0, opQuery, 2, 10), uint8(3))
	f.Add(append(message(1, 0, opReply, 2, 10), message(2, 1, opInsert, 0, 0)...), uint8(200))
	f.Add([]byte("\x01\x00\x00\x00"), uint8(1))
	f.Fuzz(func(t *testing.T, p []byte, n uint8) {
		x := newFilter(t, compile(t, stats.New()))
		feed(t, func(b *buf.Buffer) bool { return x.OnRead(b, false) }, p, int(n)+1)
		feed(t, x.OnWrite, p, int(n)+1)
		x.OnConnectionEnd(nil)
		if v := x.stats.QueryActive.Value(); v != 0 {
			t.Errorf("%d queries are active after the end", v)
		}
	})
}
