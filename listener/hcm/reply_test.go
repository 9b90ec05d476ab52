package hcm

import (
	"strings"
	"testing"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

func say(status int, body string) *filter.Reply {
	return &filter.Reply{Status: status, Body: body, Details: "test", GRPCStatus: -1}
}

// TestReplyFromEachPhase answers from every callback of the middle one of three filters.
func TestReplyFromEachPhase(t *testing.T) {
	t.Parallel()
	reply := func(f *fakeFilter, t *stream.Turn) filter.Action {
		f.s.Reply(t, say(403, "no"))
		return filter.Done
	}
	inHead := func(f *fakeFilter, t *stream.Turn, _ *header.Map, _ bool) filter.Action { return reply(f, t) }
	inData := func(f *fakeFilter, t *stream.Turn, _ *buf.Buffer, _ bool) filter.Action { return reply(f, t) }
	inTrailers := func(f *fakeFilter, t *stream.Turn, _ *header.Map) filter.Action { return reply(f, t) }
	gone := []string{"log 403 - test", "up.destroy", "a.destroy", "b.destroy", "c.destroy"}
	for name, c := range map[string]struct {
		set  func(s *script)
		want []string
	}{
		"request headers": {func(s *script) { s.reqHeaders = inHead }, []string{
			"a.req.headers", "b.req.headers", "b.resp.headers", "a.resp.headers", "enc.headers 403",
			"b.resp.data no end", "a.resp.data no end", "enc.data no end",
		}},
		"request data": {func(s *script) { s.reqData = inData }, []string{
			"a.req.headers", "b.req.headers", "c.req.headers", "up.headers", "a.req.data x", "b.req.data x",
			"c.resp.headers", "b.resp.headers", "a.resp.headers", "enc.headers 403",
			"c.resp.data no end", "b.resp.data no end", "a.resp.data no end", "enc.data no end",
		}},
		"request trailers": {func(s *script) { s.reqTrailers = inTrailers }, []string{
			"a.req.headers", "b.req.headers", "c.req.headers", "up.headers", "a.req.data x", "b.req.data x",
			"c.req.data x", "up.data x", "a.req.trailers", "b.req.trailers",
			"c.resp.headers", "b.resp.headers", "a.resp.headers", "enc.headers 403",
			"c.resp.data no end", "b.resp.data no end", "a.resp.data no end", "enc.data no end",
		}},
		// A second response is seen by no filter.
		"response headers": {func(s *script) { s.respHeaders = inHead }, []string{
			"a.req.headers", "b.req.headers", "c.req.headers", "up.headers", "a.req.data x", "b.req.data x",
			"c.req.data x", "up.data x", "a.req.trailers", "b.req.trailers", "c.req.trailers", "up.trailers t=1",
			"c.resp.headers", "b.resp.headers", "enc.headers 403", "enc.data no end",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", "a", "b", "c")
			c.set(r.scripts["b"])
			r.request(false)
			if !r.enc.released.Load() {
				r.data("x", false)
			}
			if !r.enc.released.Load() {
				r.trailers("t: 1")
			}
			if !r.enc.released.Load() {
				r.respHeaders(false)
			}
			r.want(append(c.want, gone...)...)
		})
	}
	t.Run("response data", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a")
		r.scripts["a"].respData = inData
		r.request(true)
		r.respHeaders(false)
		r.take()
		r.respData("x", false)
		// The head has gone: all that is left is to cut the response off.
		r.want("a.resp.data x", "enc.reset", "log 200 - test", "up.destroy", "a.destroy")
	})
	t.Run("from outside while waiting", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a")
		var x filter.Resume
		var f *fakeFilter
		r.scripts["a"].reqHeaders = func(g *fakeFilter, _ *stream.Turn, _ *header.Map, _ bool) filter.Action {
			f, x = g, g.s.Pause(filter.Request)
			return filter.Wait
		}
		r.request(true)
		r.take()
		x.Call(r.turn, func(t *stream.Turn) { f.s.Reply(t, say(429, "")) })
		r.want("a.resp.headers end", "enc.headers 429 end", "log 429 - test", "up.destroy", "a.destroy")
		r.resume(x) // the stream is over
		r.want("")
	})
	t.Run("a response held by a filter is replaced", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a", "b")
		r.scripts["b"].respHeaders, r.scripts["b"].respData = holdHeaders, holdUntilEnd
		r.request(true)
		r.respHeaders(false)
		r.respData("x", false)
		r.take()
		r.inside(func(t *stream.Turn) { r.up.s.Reply(t, say(504, "late")) })
		r.want("enc.headers 504", "enc.data late end", "log 504 - test", "up.destroy", "a.destroy", "b.destroy")
	})
}

func TestReplyHead(t *testing.T) {
	t.Parallel()
	grpc := "content-type: application/grpc"
	for name, c := range map[string]struct {
		head  []string
		reply *filter.Reply
		want  string
		body  string
	}{
		"body":            {nil, say(403, "no"), ":status=403 content-length=2 content-type=text/plain date=now server=envoy", "no"},
		"no body":         {nil, say(404, ""), ":status=404 date=now server=envoy", ""},
		"head":            {[]string{":method: HEAD"}, say(503, "body"), ":status=503 content-length=4 content-type=text/plain date=now server=envoy", ""},
		"grpc 403":        {[]string{grpc}, say(403, "no"), ":status=200 content-type=application/grpc date=now grpc-message=no grpc-status=7 server=envoy", ""},
		"grpc 400":        {[]string{grpc + "+proto"}, say(400, ""), ":status=200 connection=close content-type=application/grpc date=now grpc-status=13 server=envoy", ""},
		"grpc 401":        {[]string{grpc}, say(401, ""), ":status=200 content-type=application/grpc date=now grpc-status=16 server=envoy", ""},
		"grpc 404":        {[]string{grpc}, say(404, ""), ":status=200 content-type=application/grpc date=now grpc-status=12 server=envoy", ""},
		"grpc 504":        {[]string{grpc}, say(504, "a b%\n"), ":status=200 content-type=application/grpc date=now grpc-message=a b%25%0A grpc-status=14 server=envoy", ""},
		"grpc 500":        {[]string{grpc}, say(500, ""), ":status=200 content-type=application/grpc date=now grpc-status=2 server=envoy", ""},
		"grpc own status": {[]string{grpc}, &filter.Reply{Status: 504, GRPCStatus: 4}, ":status=200 content-type=application/grpc date=now grpc-status=4 server=envoy", ""},
		"not grpc":        {[]string{grpc + ";x"}, say(403, ""), ":status=403 date=now server=envoy", ""},
		"headers":         {nil, &filter.Reply{Status: 401, GRPCStatus: -1, Headers: func(h *header.Map) { h.Add("x", "1") }}, ":status=401 date=now server=envoy x=1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", "a")
			r.scripts["a"].reqHeaders = func(f *fakeFilter, t *stream.Turn, _ *header.Map, _ bool) filter.Action {
				f.s.Reply(t, c.reply)
				return filter.Done
			}
			r.request(true, c.head...)
			if got := names(&r.enc.last); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if sent := strings.Contains(r.take(), "enc.data"); sent != (c.body != "") {
				t.Errorf("body sent: %t", sent)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		yaml string
		head []string
		want string
	}{
		"no host":             {"", []string{"-:authority"}, "log 400 - missing_host_header"},
		"no path":             {"", []string{"-:path"}, "log 404 - missing_path_rejected"},
		"relative path":       {"", []string{":path: x"}, "log 404 - absolute_path_rejected"},
		"fragment":            {"", []string{":path: /a#b"}, "log 400 - path_normalization_failed"},
		"escaped slash":       {"path_with_escaped_slashes_action: REJECT_REQUEST", []string{":path: /a%2Fb"}, "log 400 - path_normalization_failed"},
		"escaped redirect":    {"path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT", []string{":path: /a%2fb?q"}, "log 307 - path_normalization_failed"},
		"unasked upgrade":     {"", []string{"connection: upgrade", "upgrade: websocket"}, "log 403 - upgrade_failed"},
		"upgrade not enabled": {"upgrade_configs: [{upgrade_type: websocket, enabled: false}]", []string{"connection: upgrade", "upgrade: websocket"}, "log 403 - upgrade_failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.yaml)
			r.request(true, c.head...)
			if got := r.take(); !strings.Contains(got, c.want) || strings.Contains(got, "up.headers") {
				t.Errorf("got %s", got)
			}
		})
	}
	r := newRig(t, "path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT")
	r.request(true, ":path: /a%2fb?q")
	if got := r.enc.last.Value(header.Location); got != "/a/b?q" {
		t.Errorf("location %q", got)
	}
	r.begin()
	r.enc.protocol = stream.HTTP10
	r.post(stream.Event{Kind: stream.EventHeaders, Map: head(), End: true})
	if got := r.ended()[1]; got.Details != "low_version" || got.Status != 426 || got.Flags != stream.DownstreamProtocolError {
		t.Errorf("HTTP/1.0: %+v", got)
	}
}

func TestRejectedAndReset(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "a")
	r.begin()
	r.post(stream.Event{Kind: stream.EventRejected, Fault: &stream.Fault{
		Status: 431, Details: "http1.headers_too_large", Body: "Too large", Flag: stream.DownstreamProtocolError, Close: true,
	}})
	r.want("enc.headers 431", "enc.data Too large end", "log 431 DPE http1.headers_too_large")
	if r.enc.last.Value(header.Connection) != "close" {
		t.Error("the connection goes on")
	}
	// In the middle of a body.
	r.request(false)
	r.post(stream.Event{Kind: stream.EventRejected, Fault: &stream.Fault{Status: 400, Details: "http1.codec_error"}})
	r.want("a.req.headers", "up.headers", "a.resp.headers end", "enc.headers 400 end", "log 400 - http1.codec_error",
		"up.destroy", "a.destroy")
	// The client goes away in each phase.
	r.begin()
	gone := stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{
		Flag: stream.DownstreamConnectionTermination, Details: "downstream_remote_disconnect",
	}}
	r.post(gone)
	r.want("log 0 DC downstream_remote_disconnect")
	r.request(true)
	r.post(gone)
	r.want("a.req.headers end", "up.headers end", "log 0 DC downstream_remote_disconnect", "up.destroy", "a.destroy")
	r.request(true)
	r.respHeaders(false)
	r.post(gone)
	r.post(gone) // late
	r.want("a.req.headers end", "up.headers end", "a.resp.headers", "enc.headers 200",
		"log 200 DC downstream_remote_disconnect", "up.destroy", "a.destroy")
	if n := r.cfg.stats.RqRxReset.Value(); n != 5 {
		t.Errorf("downstream_rq_rx_reset %d, want 5", n)
	}
	if n := r.cfg.stats.RqActive.Value(); n != 0 {
		t.Errorf("downstream_rq_active %d", n)
	}
}

// TestEarlyResponse ends the connection with a response that comes before the request is whole.
func TestEarlyResponse(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.request(false)
	r.data("x", false)
	r.respHeaders(true)
	r.data("y", false)
	r.want("up.headers", "up.data x", "enc.headers 200 end", "log 200 - via_upstream", "up.destroy")
	if r.enc.last.Value(header.Connection) != "close" || r.cfg.stats.RqResponseBeforeComplete.Value() != 1 {
		t.Errorf("%s", names(&r.enc.last))
	}
}

func TestPanicResetsTheStreamOnly(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(s *script){
		"in a callback": func(s *script) {
			s.reqHeaders = func(*fakeFilter, *stream.Turn, *header.Map, bool) filter.Action { panic("x") }
		},
		"in a callback and in its end": func(s *script) {
			s.reqHeaders = func(*fakeFilter, *stream.Turn, *header.Map, bool) filter.Action { panic("x") }
			s.onDestroy = func() { panic("y") }
		},
		"in the log": func(s *script) { s.onLog = func() { panic("x") } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", "a")
			other := newRig(t, "", "b")
			other.request(false)
			set(r.scripts["a"])
			r.request(true)
			if !r.enc.released.Load() {
				r.respHeaders(true)
			}
			if !r.enc.released.Load() {
				t.Fatal("the stream goes on")
			}
			if r.cfg.bugs.EnvoyBug.Value() == 0 || r.cfg.stats.RqActive.Value() != 0 {
				t.Errorf("bugs %d, active %d", r.cfg.bugs.EnvoyBug.Value(), r.cfg.stats.RqActive.Value())
			}
			*r.scripts["a"] = script{}
			r.take()
			r.request(true)
			r.respHeaders(true)
			r.want("a.req.headers end", "up.headers end", "a.resp.headers end", "enc.headers 200 end",
				"log 200 - via_upstream", "up.destroy", "a.destroy")
		})
	}
}
