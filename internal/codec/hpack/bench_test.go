package hpack

import (
	"fmt"
	"reflect"
	"testing"

	"sidecar/api/header"
)

// traffic are the heads of requests on one connection: ten fields, of which path and request id
// differ each time.
func traffic(n int) []*header.Map {
	var out []*header.Map
	for i := range n {
		m := new(header.Map)
		for _, f := range [][2]string{
			{":method", "GET"},
			{":scheme", "http"},
			{":path", fmt.Sprintf("/api/v1/items/%d", i)},
			{":authority", "reviews.default.svc.cluster.local:9080"},
			{"user-agent", "client/1.2.3 (linux)"},
			{"accept", "application/json"},
			{"x-forwarded-proto", "http"},
			{"x-request-id", fmt.Sprintf("0d6c2b1e-7f5a-4c3b-9a8d-%012d", i)},
			{"x-envoy-expected-rq-timeout-ms", "15000"},
			{"x-tenant", "blue"},
		} {
			m.Add(f[0], f[1])
		}
		out = append(out, m)
	}
	return out
}

type mapSink struct{ m header.Map }

func (s *mapSink) Field(name, value []byte, id header.ID, _ bool) error {
	if id != header.None {
		s.m.AddIDBytes(id, value)
	} else {
		s.m.AddRaw(name, value)
	}
	return nil
}

// codec returns a function that encodes one head, and one that decodes it.
func codec() (encode, decode func(i int)) {
	heads := traffic(64)
	var e Encoder
	e.Init()
	var first []byte
	first = e.AppendMap(first, heads[0])
	blocks := make([][]byte, len(heads))
	for i, m := range heads {
		blocks[i] = e.AppendMap(nil, m)
	}
	d := new(Decoder)
	d.Init(defaultTable)
	s := new(mapSink)
	if err := d.Decode(first, s); err != nil {
		panic(err)
	}
	out := make([]byte, 0, 1024)
	return func(i int) { out = e.AppendMap(out[:0], heads[i&63]) },
		func(i int) {
			s.m.Reset()
			if err := d.Decode(blocks[i&63], s); err != nil {
				panic(err)
			}
		}
}

func BenchmarkEncode(b *testing.B) {
	encode, _ := codec()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		encode(i)
	}
}

func BenchmarkDecode(b *testing.B) {
	_, decode := codec()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		decode(i)
	}
}

type nullSink struct{}

func (nullSink) Field([]byte, []byte, header.ID, bool) error { return nil }

// BenchmarkParse is BenchmarkDecode without the map.
func BenchmarkParse(b *testing.B) {
	var e Encoder
	e.Init()
	d := newDecoder(defaultTable)
	m := traffic(1)[0]
	if err := d.Decode(e.AppendMap(nil, m), nullSink{}); err != nil {
		b.Fatal(err)
	}
	block := e.AppendMap(nil, m)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(block, nullSink{}); err != nil {
			b.Fatal(err)
		}
	}
}

// A connection pays for tables only once it has entries.
func TestSize(t *testing.T) {
	t.Parallel()
	const most = 120
	if n := reflect.TypeFor[Decoder]().Size(); n > most {
		t.Errorf("a decoder takes %d bytes", n)
	}
	if n := reflect.TypeFor[Encoder]().Size(); n > most {
		t.Errorf("an encoder takes %d bytes", n)
	}
}
