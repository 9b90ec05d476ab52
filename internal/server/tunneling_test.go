package server_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// connectProxy is an HTTP/1 proxy that answers CONNECT with a status and sends back what it is sent. It
// tells what it was asked.
func connectProxy(t *testing.T, answer func(n int) string) (addr string, asked chan *http.Request) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked = make(chan *http.Request, 16)
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				asked <- req
				if _, err := io.WriteString(c, answer(n)); err != nil {
					return
				}
				_, _ = io.Copy(struct{ io.Writer }{c}, r)
			})
		}
	})
	return ln.Addr().String(), asked
}

// echoes sends n bytes through a listener, with the end of our side behind them, and reads them back.
func echoes(t *testing.T, addr string, n int) error {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), n/16)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		if tc, ok := c.(*net.TCPConn); ok {
			err = errors.Join(err, tc.CloseWrite())
		}
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err = errors.Join(err, <-sent); err != nil {
		return fmt.Errorf("after %d bytes: %w", len(got), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("got %d bytes of %d", len(got), len(want))
	}
	return nil
}

const ok200 = "HTTP/1.1 200 Established\r\nx-proxy: p1\r\n\r\n"

// TestTunneling_HTTP1 goes through CONNECT to a proxy of HTTP/1.
func TestTunneling_HTTP1(t *testing.T) {
	t.Parallel()
	addr, asked := connectProxy(t, func(int) string { return ok200 })
	p := live(t, tcpProxy(addr, `
          tunneling_config:
            hostname: "%PROTOCOL%target:%DOWNSTREAM_LOCAL_PORT%"
            headers_to_add: [{header: {key: x-from, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}]`))
	l := p.listener("l")
	_, port, _ := net.SplitHostPort(l)
	for _, n := range []int{16, 16 << 20} {
		if err := echoes(t, l, n); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		r := <-asked
		if r.Method != http.MethodConnect || r.Host != "-target:"+port || r.Header.Get("X-From") != "127.0.0.1" {
			t.Errorf("the proxy was asked %s %s %v", r.Method, r.Host, r.Header)
		}
	}
	p.waitStat("cluster.c.upstream_cx_destroy", 2)
	if n := p.stat("cluster.c.upstream_cx_active"); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestTunneling_Refused tries again as often as it may, and ends with the connection's failure.
func TestTunneling_Refused(t *testing.T) {
	t.Parallel()
	const no = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
	for name, x := range map[string]struct {
		answer func(n int) string
		tries  int
		ok     bool
	}{
		"always":     {func(int) string { return no }, 3, false},
		"at first":   {func(n int) string { return []string{no, ok200}[min(n, 1)] }, 2, true},
		"no answer":  {func(int) string { return "" }, 1, false},
		"other 2xx":  {func(int) string { return "HTTP/1.1 202 A\r\ncontent-length: 3\r\n\r\n" }, 1, true},
		"end of all": {func(int) string { return "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" }, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, asked := connectProxy(t, x.answer)
			path := filepath.Join(t.TempDir(), "log")
			p := live(t, tcpProxy(addr, `
          max_connect_attempts: 3
          idle_timeout: 5s
          access_log:
          - name: l
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: `+path+`
              log_format: {text_format_source: {inline_string: "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n"}}
          tunneling_config: {hostname: "a:1"}`))
			if name == "no answer" {
				c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.listener("l"))
				if err != nil {
					t.Fatal(err)
				}
				<-asked
				if tc, ok := c.(*net.TCPConn); ok {
					_ = tc.SetLinger(0) // a reset, which gives up the attempt
				}
				_ = c.Close()
				p.waitStat("cluster.c.upstream_cx_destroy", 1)
				return
			}
			err := echoes(t, p.listener("l"), 1<<10)
			if (err == nil) != x.ok {
				t.Errorf("error %v", err)
			}
			if n := len(asked); n != x.tries {
				t.Errorf("asked %d times", n)
			}
			if name == "always" {
				p.wait("the log line", func() bool {
					b, err := os.ReadFile(path)
					return err == nil && string(b) == "UF,URX tunnel_response:403\n"
				})
			}
			if exceeded := p.stat("cluster.c.upstream_cx_connect_attempts_exceeded"); (exceeded == 1) == x.ok {
				t.Errorf("%d attempts exceeded", exceeded)
			}
		})
	}
}

// TestTunneling_HTTP2 goes through CONNECT and POST to a proxy of HTTP/2; sessions share a connection.
func TestTunneling_HTTP2(t *testing.T) {
	t.Parallel()
	for method, config := range map[string]string{
		http.MethodConnect: `hostname: "a:1"`,
		http.MethodPost:    `hostname: "a:1", use_post: true, post_path: /x`,
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			asked := make(chan string, 16)
			addr := h2cServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked <- fmt.Sprint(r.Method, " ", r.Host, " ", r.Proto)
				w.WriteHeader(http.StatusOK)
				rc := http.NewResponseController(w)
				_ = rc.Flush()
				b := make([]byte, 32<<10)
				for {
					n, err := r.Body.Read(b)
					if n > 0 {
						_, _ = w.Write(b[:n])
						_ = rc.Flush()
					}
					if err != nil {
						return
					}
				}
			}))
			p := live(t, tcpProxy(addr, "\n          tunneling_config: {"+config+"}")+`
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`)
			l := p.listener("l")
			var wg sync.WaitGroup
			for _, n := range []int{16, 1 << 10, 8 << 20} {
				wg.Go(func() {
					if err := echoes(t, l, n); err != nil {
						t.Errorf("%d bytes: %v", n, err)
					}
				})
			}
			wg.Wait()
			if got := <-asked; got != method+" a:1 HTTP/2.0" {
				t.Errorf("asked %q", got)
			}
			if n := p.stat("cluster.c.upstream_cx_total"); n > 3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestTunneling_Answer has the proxy's answer in the filter state, which log lines read.
func TestTunneling_Answer(t *testing.T) {
	t.Parallel()
	addr, _ := connectProxy(t, func(int) string { return ok200 })
	path := filepath.Join(t.TempDir(), "log")
	p := live(t, tcpProxy(addr, `
          tunneling_config: {hostname: "a:1", propagate_response_headers: true}
          access_log:
          - name: l
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: `+path+`
              log_format: {text_format_source: {inline_string: "proxy %FILTER_STATE(envoy.tcp_proxy.propagate_response_headers:FIELD:x-proxy)% %UPSTREAM_HOST% %BYTES_RECEIVED%\n"}}`))
	if err := echoes(t, p.listener("l"), 160); err != nil {
		t.Fatal(err)
	}
	p.wait("the log line", func() bool {
		b, err := os.ReadFile(path)
		return err == nil && string(b) == "proxy p1 "+addr+" 160\n"
	})
}
