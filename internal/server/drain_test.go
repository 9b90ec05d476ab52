package server_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawHTTP2 is a client that has sent its preface.
func rawHTTP2(t *testing.T, addr string, settings ...http2.Setting) (net.Conn, *http2.Framer) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(c, c)
	if err := fr.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c, fr
}

// events reads to the end of the connection and tells of GOAWAYs, resets and the ends of streams.
func events(fr *http2.Framer) []string {
	var out []string
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				out = append(out, err.Error())
			}
			return out
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			out = append(out, fmt.Sprint("goaway ", f.ErrCode, " ", f.LastStreamID))
		case *http2.RSTStreamFrame:
			return append(out, fmt.Sprint("reset ", f.ErrCode))
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				out = append(out, "end")
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				out = append(out, "end")
			}
		}
	}
}

func ask(t *testing.T, fr *http2.Framer, path string) {
	t.Helper()
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", path}} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: true})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHTTP2_Idle ends connections that are idle: first a GOAWAY that still takes streams, drain_timeout
// later one that names the last, then the end.
func TestHTTP2_Idle(t *testing.T) { //nolint:tparallel // what both have ended is counted
	t.Parallel()
	text := strings.Replace(versions(upstream(t, "one"), false, ""), "          stat_prefix: in\n",
		"          stat_prefix: in\n          drain_timeout: 0.05s\n"+
			"          common_http_protocol_options: {idle_timeout: 0.1s}\n", 1)
	p := live(t, text)
	for _, tt := range []struct {
		name string
		ask  bool
		want string
	}{
		{"after a request", true, "end goaway NO_ERROR 2147483647 goaway NO_ERROR 1"},
		{"without a request", false, "goaway NO_ERROR 2147483647 goaway NO_ERROR 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, fr := rawHTTP2(t, p.listener("l"))
			if tt.ask {
				ask(t, fr, "/")
			}
			if got := strings.Join(events(fr), " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if n := p.stat("http.in.downstream_cx_idle_timeout"); n != 2 {
		t.Errorf("%d idle time-outs", n)
	}
}

// TestHTTP2_FlushTimeout resets the stream of a client that does not take the rest of its response, in
// the time that the route gives it.
func TestHTTP2_FlushTimeout(t *testing.T) {
	t.Parallel()
	addr := h2cServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 1000))
	}))
	text := strings.Replace(versions(addr, false, ""), "route: {cluster: c}", "route: {cluster: c, flush_timeout: 0.1s}", 1)
	p := live(t, text)
	_, fr := rawHTTP2(t, p.listener("l"), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	ask(t, fr, "/")
	if got := strings.Join(events(fr), " "); !strings.HasPrefix(got, "reset ") {
		t.Errorf("got %q", got)
	}
	p.waitStat("http2.tx_flush_timeout", 1)
}
