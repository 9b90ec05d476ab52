package h1

import (
	"bytes"
	"strings"
	"testing"

	"sidecar/api/header"
	"sidecar/internal/buf"
)

// fuzzOptions turns the bits of a byte into options.
func fuzzOptions(bits byte) *ServerOptions {
	o := DefaultServerOptions()
	o.Strict = bits&1 != 0
	o.AcceptHTTP10 = bits&2 != 0
	o.EnableTrailers = bits&4 != 0
	o.AllowChunkedLength = bits&8 != 0
	o.AllowCustomMethods = bits&16 != 0
	o.AllowAbsoluteURL = bits&32 == 0
	o.DropUnderscores = bits&64 != 0
	if bits&128 != 0 {
		o.MaxHeadersBytes, o.MaxHeaders = 200, 3
	}
	return o
}

func addSeeds(f *testing.F, response bool) {
	f.Helper()
	seeds := []string{
		get(""), get("x: 1\r\n y\r\n"), get("connection: a, te\r\nte: trailers\r\n"), chunked("5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n"),
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\n\r\nraw", "GET http://u@b:1/c?d HTTP/1.1\r\nhost: x\r\n\r\n", "OPTIONS * HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\nhost: a\n\n", "GET /\r\n", "\r\nGET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
		get("connection: upgrade\r\nupgrade: h2c\r\n"), get("connection: upgrade\r\nupgrade: x\r\n"),
		get("content-length: 1\r1\r\n"), get("transfer-encoding: chunked\r\ncontent-length: 1\r\n"),
		get("a_b: 1\r\nexpect: 100-continue\r\n"), chunked("1\r\na\n1 x\r\nb\r\n0\r\n\n"), chunked("0\r\n\r\r\nx:y\r\n\r\n"),
		"GET\t/\rHTTP/1.1\r\n\r\n", get("x: \x00\r\n"),
	}
	if response {
		seeds = []string{
			"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.0 200\r\n\r\nok", "HTTP/1.1 204 N\r\ncontent-length: 0\r\n\r\n",
			"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 304 N\r\ncontent-length: 5\r\n\r\n", "HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nraw",
			"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n", "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
			"HTTP/1.1 200 OK\nset-cookie: a\nset-cookie: b\n\n", "HTTP/2.0  999  \x80\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
		}
	}
	for i, s := range seeds {
		f.Add([]byte(s), byte(i*37), uint16(i))
	}
}

// sameHowever checks that the pieces in which a stream comes do not change what is made of it.
func sameHowever(t *testing.T, in []byte, bits byte, at uint16, response bool) string {
	t.Helper()
	whole := decodeAll(fuzzOptions(bits), response, string(in))
	d := newDecoder(fuzzOptions(bits), response)
	k := 0
	if len(in) > 0 {
		k = int(at) % len(in)
	}
	d.feed(bytes.Clone(in[:k]))
	d.feed(bytes.Clone(in[k:]))
	if got := d.end(); got != whole {
		t.Fatalf("split at %d:\n%s\nin one piece:\n%s", k, got, whole)
	}
	if len(in) < 2000 {
		d = newDecoder(fuzzOptions(bits), response)
		for _, b := range in {
			d.feed([]byte{b})
		}
		if got := d.end(); got != whole {
			t.Fatalf("byte by byte:\n%s\nin one piece:\n%s", got, whole)
		}
	}
	return whole
}

// checkHead looks for what must never come out of a decoder.
func checkHead(t *testing.T, m *header.Map) {
	t.Helper()
	for i := range m.Len() {
		n, v := m.At(i)
		if n != strings.ToLower(n) || strings.ContainsAny(n, " \t\r\n\x00") {
			t.Fatalf("name %q", n)
		}
		if strings.ContainsAny(v, "\r\n\x00") {
			t.Fatalf("%s has value %q", n, v)
		}
	}
	if m.Has(header.ContentLength) && m.Has(header.TransferEncoding) {
		t.Fatal("both lengths")
	}
}

func FuzzRequest(f *testing.F) {
	addSeeds(f, false)
	f.Fuzz(func(t *testing.T, in []byte, bits byte, at uint16) {
		sameHowever(t, in, bits, at, false)
		o := fuzzOptions(bits)
		r := headReader{opt: &o.Options, server: o, max: maxHead(&o.Options, false)}
		var m header.Map
		var h head
		work := bytes.Clone(in[leadingLines(in, false):])
		if n, err := r.read(work, &m, &h); n == 0 || err != nil {
			return
		}
		checkHead(t, &m)
		again(t, &m)
	})
}

// again sends what was read and reads it: it must be taken as the same request, by the strictest.
func again(t *testing.T, m *header.Map) {
	t.Helper()
	var out buf.Chain
	defer out.Reset()
	end := !m.Has(header.TransferEncoding) && !m.Has(header.ContentLength)
	encodeRequest(&out, &Options{}, m, requestPlan(m, end))
	o := DefaultServerOptions()
	o.Strict, o.AllowCustomMethods, o.MaxHeaders, o.MaxHeadersBytes = true, true, 10000, 1<<20
	r := headReader{opt: &o.Options, server: o, max: o.MaxHeadersBytes}
	var m2 header.Map
	var h head
	n, err := r.read(bytes.Clone(flat(&out)), &m2, &h)
	if p := m.Value(header.Path); err != nil && (!m.Has(header.Path) || p[0] != '/') {
		return // OPTIONS *, a query alone: not every server takes what proxies do
	}
	if err != nil || n != out.Len() {
		t.Fatalf("%q is not taken: %v", flat(&out), err)
	}
	for _, id := range []header.ID{header.Method, header.Path, header.Authority} {
		if got, want := m2.Value(id), m.Value(id); got != want && !strings.ContainsAny(want, "\t\f\x7f") {
			t.Fatalf("%s: sent %q, read %q", id, want, got)
		}
	}
}

func FuzzResponse(f *testing.F) {
	addSeeds(f, true)
	f.Fuzz(func(t *testing.T, in []byte, bits byte, at uint16) {
		sameHowever(t, in, bits, at, true)
		o := fuzzOptions(bits)
		r := headReader{opt: &o.Options, response: true, max: maxHead(&o.Options, true)}
		var m header.Map
		h := head{isHead: bits&1 != 0, connect: bits&2 != 0, upgrade: bits&4 != 0}
		if n, err := r.read(bytes.Clone(in), &m, &h); n == 0 || err != nil {
			return
		}
		checkHead(t, &m)
	})
}

// FuzzChunked encodes what it decodes, which must come out the same.
func FuzzChunked(f *testing.F) {
	for i, s := range []string{"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5;x\r\nhello\r\n0\r\nx: y\r\n\r\n", "1\r\na\r\n1\r\nb\n0\r\n\n", "FFFFFFFFFFFFFFFF\r\na", "g", "0\r\n\r\r\n"} {
		f.Add([]byte(s), byte(i), uint16(i*3))
	}
	f.Fuzz(func(t *testing.T, in []byte, bits byte, at uint16) {
		head := "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
		bits &^= 128
		whole := sameHowever(t, append([]byte(head), in...), bits, at, false)
		if strings.Contains(whole, "!") {
			return
		}
		o := fuzzOptions(bits)
		b := bodyReader{opt: &o.Options, server: o, max: 1 << 20, state: chunkSize}
		var body []byte
		var tr header.Map
		n, data, err := b.read(bytes.Clone(in), &tr)
		if err != nil {
			t.Fatal(err)
		}
		body = append(body, data...)
		if !b.done() {
			return
		}
		_ = n
		var out buf.Chain
		defer out.Reset()
		w := bodyWriter{frame: frameChunked}
		w.data(&out, body)
		w.end(&out, &o.Options, &tr)
		strict := Options{Strict: true, EnableTrailers: true, MaxHeaders: 10000}
		b = bodyReader{opt: &strict, max: 1 << 20, state: chunkSize}
		n, data, err = b.read(bytes.Clone(flat(&out)), new(header.Map))
		if err != nil || n != out.Len() || !b.done() || !bytes.Equal(data, body) {
			t.Fatalf("%q decodes to %q (%d bytes), %v", flat(&out), data, n, err)
		}
	})
}
