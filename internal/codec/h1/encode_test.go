package h1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/header"
	"sidecar/internal/buf"
)

func fill(m *header.Map, kv ...string) *header.Map {
	for i := 0; i < len(kv); i += 2 {
		m.Add(kv[i], kv[i+1])
	}
	return m
}

// flat returns what a chain holds.
func flat(c *buf.Chain) []byte {
	p := make([]byte, c.Len())
	return p[:c.Peek(p)]
}

// wireBytes encodes a message whose body comes in two parts and writes line ends as |.
func wireBytes(encode func(out *buf.Chain, w *bodyWriter), o *Options, body string, trailers *header.Map) (string, bool) {
	var out buf.Chain
	defer out.Reset()
	var w bodyWriter
	encode(&out, &w)
	w.data(&out, []byte(body[:len(body)/2]))
	w.data(&out, []byte(body[len(body)/2:]))
	w.end(&out, o, trailers)
	return strings.ReplaceAll(string(flat(&out)), "\r\n", "|"), w.broken
}

func TestEncodeRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		kv     []string
		body   string
		opt    Options
		want   string
		broken bool
	}{
		{"GET", []string{":authority", "a", ":path", "/", ":method", "GET", "x", "1"}, "", Options{}, "GET / HTTP/1.1|host: a|x: 1||", false},
		{"authority behind", []string{":method", "GET", ":path", "/", "x", "1", ":authority", "a"}, "", Options{}, "GET / HTTP/1.1|host: a|x: 1||", false},
		{"DELETE", []string{":path", "/", ":method", "DELETE"}, "", Options{}, "DELETE / HTTP/1.1||", false},
		{"POST without body", []string{":path", "/", ":method", "POST"}, "", Options{}, "POST / HTTP/1.1|content-length: 0||", false},
		{"OPTIONS without body", []string{":path", "*", ":method", "OPTIONS"}, "", Options{}, "OPTIONS * HTTP/1.1|content-length: 0||", false},
		{"chunks", []string{":path", "/", ":method", "POST"}, "hello", Options{}, "POST / HTTP/1.1|transfer-encoding: chunked||2|he|3|llo|0||", false},
		{"length", []string{":path", "/", ":method", "POST", "content-length", "5", "x", "1"}, "hello", Options{}, "POST / HTTP/1.1|content-length: 5|x: 1||hello", false},
		{"GET with body", []string{":path", "/", ":method", "GET", "content-length", "5"}, "hello", Options{}, "GET / HTTP/1.1|content-length: 5||hello", false},
		{"longer than announced", []string{":path", "/", ":method", "POST", "content-length", "3"}, "hello", Options{}, "POST / HTTP/1.1|content-length: 3||hel", true},
		{"shorter than announced", []string{":path", "/", ":method", "POST", "content-length", "9"}, "hello", Options{}, "POST / HTTP/1.1|content-length: 9||hello", true},
		{"no body though announced", []string{":path", "/", ":method", "POST", "content-length", "9"}, "", Options{}, "POST / HTTP/1.1|content-length: 0||", false},
		{"joined lengths", []string{":path", "/", ":method", "POST", "content-length", "5", "content-length", "9"}, "hello", Options{}, "POST / HTTP/1.1|transfer-encoding: chunked||2|he|3|llo|0||", false},
		{"length and encoding", []string{":path", "/", ":method", "POST", "content-length", "5", "transfer-encoding", "chunked"}, "hello", Options{}, "POST / HTTP/1.1|content-length: 5||hello", false},
		{"encoding of a request without body", []string{":path", "/", ":method", "GET", "transfer-encoding", "chunked"}, "", Options{}, "GET / HTTP/1.1||", false},
		{"connect", []string{":authority", "b:80", ":method", "CONNECT"}, "raw", Options{}, "CONNECT b:80 HTTP/1.1|host: b:80||raw", false},
		{"upgrade", []string{":path", "/", ":method", "GET", "connection", "upgrade", "upgrade", "x"}, "raw", Options{}, "GET / HTTP/1.1|connection: upgrade|upgrade: x||raw", false},
		{"upgrade of length 0", []string{":path", "/", ":method", "GET", "connection", "upgrade", "upgrade", "x", "content-length", "0"}, "raw", Options{}, "GET / HTTP/1.1|connection: upgrade|upgrade: x||raw", false},
		{"line ends in a value", []string{":path", "/", ":method", "GET", "x", "a\r\ncontent-length: 5\r\n\r\n\x00", "y", "2"}, "", Options{}, "GET / HTTP/1.1|x: acontent-length: 5|y: 2||", false},
		{"line ends in a name", []string{":path", "/", ":method", "GET", "x\r\ny", "a"}, "", Options{}, "GET / HTTP/1.1||", false},
		{"space in a name", []string{":path", "/", ":method", "GET", "transfer-encoding ", "chunked"}, "", Options{}, "GET / HTTP/1.1||", false},
		{"space in the path", []string{":path", "/a b\r\nx: y\x7f", ":method", "GET"}, "", Options{}, "GET /a%20b%0D%0Ax:%20y%7F HTTP/1.1||", false},
		{"growing path", []string{":path", "/" + strings.Repeat(" ", 9000), ":method", "GET"}, "", Options{}, "GET /" + strings.Repeat("%20", 9000) + " HTTP/1.1||", false},
		{"proper case", []string{":authority", "a", ":path", "/", ":method", "POST", "x-foo.bar_baz1a", "1"}, "hi", Options{ProperCase: true}, "POST / HTTP/1.1|Host: a|X-Foo.Bar_Baz1a: 1|Transfer-Encoding: chunked||1|h|1|i|0||", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := fill(new(header.Map), c.kv...)
			got, broken := wireBytes(func(out *buf.Chain, w *bodyWriter) {
				p := requestPlan(m, c.body == "")
				w.begin(p)
				encodeRequest(out, &c.opt, m, p)
			}, &c.opt, c.body, nil)
			if d := cmp.Diff(c.want, got); d != "" || broken != c.broken {
				t.Errorf("broken %v %s", broken, d)
			}
		})
	}
}

func TestEncodeResponse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		kv     []string
		body   string
		r      reply
		want   string
		broken bool
	}{
		{"length", []string{":status", "200", "content-length", "5", "x", "1"}, "hello", reply{}, "HTTP/1.1 200 OK|content-length: 5|x: 1||hello", false},
		{"chunks", []string{":status", "200"}, "hello", reply{}, "HTTP/1.1 200 OK|transfer-encoding: chunked||2|he|3|llo|0||", false},
		{"nothing", []string{":status", "404"}, "", reply{end: true}, "HTTP/1.1 404 Not Found|content-length: 0||", false},
		{"204", []string{":status", "204", "content-length", "0"}, "", reply{end: true}, "HTTP/1.1 204 No Content||", false},
		{"204 with a body", []string{":status", "204", "content-length", "5"}, "hello", reply{}, "HTTP/1.1 204 No Content||", false},
		{"304", []string{":status", "304", "content-length", "5"}, "", reply{end: true}, "HTTP/1.1 304 Not Modified|content-length: 5||", false},
		{"304 without length", []string{":status", "304"}, "", reply{}, "HTTP/1.1 304 Not Modified||", false},
		{"HEAD", []string{":status", "200", "content-length", "5"}, "", reply{isHead: true, end: true}, "HTTP/1.1 200 OK|content-length: 5||", false},
		{"HEAD with a body", []string{":status", "200", "content-length", "5"}, "hello", reply{isHead: true}, "HTTP/1.1 200 OK|content-length: 5||", false},
		{"HEAD without length", []string{":status", "200"}, "", reply{isHead: true, end: true}, "HTTP/1.1 200 OK|transfer-encoding: chunked||", false},
		{"HTTP/1.0", []string{":status", "200"}, "hello", reply{http10: true}, "HTTP/1.0 200 OK||hello", false},
		{"HTTP/1.0 with length", []string{":status", "200", "content-length", "5"}, "hello", reply{http10: true}, "HTTP/1.0 200 OK|content-length: 5||hello", false},
		{"upgrade", []string{":status", "101", "connection", "Upgrade", "upgrade", "x"}, "raw", reply{}, "HTTP/1.1 101 Switching Protocols|connection: Upgrade|upgrade: x||raw", false},
		{"connect", []string{":status", "200"}, "raw", reply{connect: true}, "HTTP/1.1 200 OK||raw", false},
		{"connect refused", []string{":status", "404"}, "no", reply{connect: true}, "HTTP/1.1 404 Not Found|transfer-encoding: chunked||1|n|1|o|0||", false},
		{"longer", []string{":status", "200", "content-length", "3"}, "hello", reply{}, "HTTP/1.1 200 OK|content-length: 3||hel", true},
		{"shorter", []string{":status", "200", "content-length", "9"}, "hello", reply{}, "HTTP/1.1 200 OK|content-length: 9||hello", true},
		{"no phrase", []string{":status", "418"}, "", reply{end: true}, "HTTP/1.1 418 Unknown|content-length: 0||", false},
		{"no status", []string{":status", "x\r\n"}, "", reply{end: true}, "HTTP/1.1 500 Internal Server Error|content-length: 0||", false},
		{"split attempt", []string{":status", "200", "location", "/\r\nset-cookie: a"}, "", reply{end: true}, "HTTP/1.1 200 OK|location: /set-cookie: a|content-length: 0||", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := fill(new(header.Map), c.kv...)
			o := &Options{}
			got, broken := wireBytes(func(out *buf.Chain, w *bodyWriter) {
				status := statusOf(m)
				p := responsePlan(m, status, c.r)
				w.begin(p)
				encodeResponse(out, o, m, status, c.r.http10, extraNone, p)
			}, o, c.body, nil)
			if d := cmp.Diff(c.want, got); d != "" || broken != c.broken {
				t.Errorf("broken %v %s", broken, d)
			}
		})
	}
}

func TestEncodeTrailers(t *testing.T) {
	t.Parallel()
	tr := fill(new(header.Map), "x", "1", "y\r", "2", "content-length", "3", "z", "a\nb")
	for _, c := range []struct {
		name string
		on   bool
		tr   *header.Map
		want string
	}{
		{"sent", true, tr, "1|a|0|x: 1|z: ab||"},
		{"not enabled", false, tr, "1|a|0||"},
		{"none", true, nil, "1|a|0||"},
		{"empty", true, new(header.Map), "1|a|0||"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := &Options{EnableTrailers: c.on}
			got, _ := wireBytes(func(_ *buf.Chain, w *bodyWriter) { w.begin(plan{frame: frameChunked}) }, o, "a", c.tr)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Names go out as they came in, a Host header too.
func TestPreserveCase(t *testing.T) {
	t.Parallel()
	so := DefaultServerOptions()
	so.PreserveCase = true
	d := newDecoder(so, false)
	d.m.KeepRawNames()
	in := []byte("GET / HTTP/1.1\r\nX-ONE: 1\r\nHOST: a\r\ncOOkie: b\r\n\r\n")
	if _, err := d.reader.read(in, &d.m, &d.h); err != nil {
		t.Fatal(err)
	}
	d.m.SetStatic(header.Scheme, "http")
	d.m.Add("x-added", "2")
	var out buf.Chain
	encodeRequest(&out, &so.Options, &d.m, requestPlan(&d.m, true))
	want := "GET / HTTP/1.1\r\nHOST: a\r\nX-ONE: 1\r\ncOOkie: b\r\nx-added: 2\r\n\r\n"
	if diff := cmp.Diff(want, string(flat(&out))); diff != "" {
		t.Error(diff)
	}
	out.Reset()
}
