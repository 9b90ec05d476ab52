package h1

import (
	"io"
	"net"
	"testing"
)

// fixedOrigin answers every request that comes in one piece with the same bytes.
func fixedOrigin(tb testing.TB, answer []byte) (addr string, stop func()) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := make([]byte, 4096)
				for {
					if _, err := c.Read(in); err != nil {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), func() { l.Close() }
}

func proxyClient(tb testing.TB) (exchange func(), stop func()) {
	tb.Helper()
	body := string(pattern(1024))
	answer := "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\ndate: Tue, 24 Nov 2026 14:16:00 GMT\r\nserver: x\r\n\r\n" + body
	up, stopOrigin := fixedOrigin(tb, []byte(answer))
	addr, _, stopProxy := startProxyTo(tb, up)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	req := []byte("GET /index.html?a=tb HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\nX-Custom: 1\r\n\r\n")
	want := make([]byte, len(answer))
	return func() {
		if _, err := c.Write(req); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.ReadFull(c, want); err != nil {
			tb.Fatal(err)
		}
	}, func() { c.Close(); stopProxy(); stopOrigin() }
}

func BenchmarkProxyGET(b *testing.B) {
	exchange, stop := proxyClient(b)
	defer stop()
	exchange()
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
}

func BenchmarkDecodeRequest(b *testing.B) {
	o := DefaultServerOptions()
	d := newDecoder(o, false)
	in := []byte("GET /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.1\r\nAccept: */*\r\nX-Custom: 1\r\n" +
		"Cookie: a=b\r\nX-Request-ID: 5b7e8a7c-4f1c-4a53-9c9b-0c7f0b1a2d3e\r\nAccept-Encoding: gzip\r\n\r\n")
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		d.m.Reset()
		d.h = head{}
		if n, err := d.reader.read(in, &d.m, &d.h); n == 0 || err != nil {
			b.Fatal(n, err)
		}
		d.reader.reset()
	}
}
