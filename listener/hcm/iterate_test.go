package hcm

import (
	"testing"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// hold and friends are callbacks that do one thing.
func holdHeaders(*fakeFilter, *stream.Turn, *header.Map, bool) filter.Action { return filter.Hold }

func waitHeaders(keep *filter.Resume, d filter.Direction) func(*fakeFilter, *stream.Turn, *header.Map, bool) filter.Action {
	return func(f *fakeFilter, _ *stream.Turn, _ *header.Map, _ bool) filter.Action {
		*keep = f.s.Pause(d)
		return filter.Wait
	}
}

func holdUntilEnd(_ *fakeFilter, _ *stream.Turn, _ *buf.Buffer, end bool) filter.Action {
	if end {
		return filter.Continue
	}
	return filter.Hold
}

func (r *rig) resume(x filter.Resume) {
	x.Continue(r.turn)
	r.turn.End()
}

func TestIterate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		filters []string
		play    func(r *rig)
		want    []string
	}{
		"request and response pass all filters": {[]string{"a", "b"}, func(r *rig) {
			r.request(false)
			r.data("x", false)
			r.data("y", true)
			r.respHeaders(false)
			r.respData("z", true)
		}, []string{
			"a.req.headers", "b.req.headers", "up.headers", "a.req.data x", "b.req.data x", "up.data x",
			"a.req.data y end", "b.req.data y end", "up.data y end", "b.resp.headers", "a.resp.headers",
			"enc.headers 200", "b.resp.data z end", "a.resp.data z end", "enc.data z end",
			"log 200 - via_upstream", "up.destroy", "a.destroy", "b.destroy",
		}},
		"trailers both ways": {[]string{"a"}, func(r *rig) {
			r.request(false)
			r.trailers("x: 1")
			r.respHeaders(false)
			r.respTrailers("y: 2")
		}, []string{
			"a.req.headers", "up.headers", "a.req.trailers", "up.trailers x=1", "a.resp.headers", "enc.headers 200",
			"a.resp.trailers", "enc.trailers y=2", "log 200 - via_upstream", "up.destroy", "a.destroy",
		}},
		"headers held until the body is whole": {[]string{"a", "b"}, func(r *rig) {
			r.scripts["a"].reqHeaders, r.scripts["a"].reqData = holdHeaders, holdUntilEnd
			r.request(false)
			r.data("x", false)
			r.data("y", true)
		}, []string{
			"a.req.headers", "a.req.data x", "a.req.data xy end", "b.req.headers", "up.headers", "b.req.data xy end",
			"up.data xy end",
		}},
		"headers held, trailers release": {[]string{"a", "b"}, func(r *rig) {
			r.scripts["a"].reqHeaders, r.scripts["a"].reqData = holdHeaders, holdUntilEnd
			r.request(false)
			r.data("x", false)
			r.trailers("t: 1")
		}, []string{
			"a.req.headers", "a.req.data x", "a.req.trailers", "b.req.headers", "up.headers", "b.req.data x", "up.data x",
			"b.req.trailers", "up.trailers t=1",
		}},
		"wait at the head replays what came": {[]string{"a", "b"}, func(r *rig) {
			var x filter.Resume
			r.scripts["a"].reqHeaders = waitHeaders(&x, filter.Request)
			r.request(false)
			r.data("x", false)
			r.data("y", true)
			r.want("a.req.headers")
			r.resume(x)
			r.resume(x) // works once
		}, []string{"b.req.headers", "up.headers", "a.req.data xy end", "b.req.data xy end", "up.data xy end"}},
		"wait at the head, trailers come meanwhile": {[]string{"a"}, func(r *rig) {
			var x filter.Resume
			r.scripts["a"].reqHeaders = waitHeaders(&x, filter.Request)
			r.request(false)
			r.data("x", false)
			r.trailers("t: 1")
			r.want("a.req.headers")
			r.resume(x)
		}, []string{"up.headers", "a.req.data x", "up.data x", "a.req.trailers", "up.trailers t=1"}},
		"wait at a head that ends": {[]string{"a"}, func(r *rig) {
			var x filter.Resume
			r.scripts["a"].reqHeaders = waitHeaders(&x, filter.Request)
			r.request(true)
			r.resume(x)
		}, []string{"a.req.headers end", "up.headers end"}},
		"the end comes alone while waiting": {[]string{"a"}, func(r *rig) {
			var x filter.Resume
			r.scripts["a"].reqHeaders = waitHeaders(&x, filter.Request)
			r.request(false)
			r.data("", true)
			r.resume(x)
		}, []string{"a.req.headers", "up.headers", "a.req.data  end", "up.data  end"}},
		"wait in data": {[]string{"a", "b"}, func(r *rig) {
			var x filter.Resume
			r.scripts["a"].reqData = func(f *fakeFilter, _ *stream.Turn, _ *buf.Buffer, _ bool) filter.Action {
				if f.count++; f.count > 1 {
					return filter.Continue
				}
				x = f.s.Pause(filter.Request)
				return filter.Wait
			}
			r.request(false)
			r.data("x", false)
			r.data("y", false)
			r.resume(x)
			r.data("z", true)
		}, []string{
			"a.req.headers", "b.req.headers", "up.headers", "a.req.data x", "b.req.data xy", "up.data xy",
			"a.req.data z end", "b.req.data z end", "up.data z end",
		}},
		"wait in trailers": {[]string{"a", "b"}, func(r *rig) {
			var x filter.Resume
			r.scripts["a"].reqTrailers = func(f *fakeFilter, _ *stream.Turn, _ *header.Map) filter.Action {
				x = f.s.Pause(filter.Request)
				return filter.Wait
			}
			r.request(false)
			r.trailers("t: 1")
			r.resume(x)
		}, []string{"a.req.headers", "b.req.headers", "up.headers", "a.req.trailers", "b.req.trailers", "up.trailers t=1"}},
		"trailers added with the last data": {[]string{"a", "b"}, func(r *rig) {
			r.scripts["a"].reqData = func(f *fakeFilter, _ *stream.Turn, _ *buf.Buffer, end bool) filter.Action {
				if end {
					f.s.AddTrailers(filter.Request).Add("t", "1")
				}
				return filter.Continue
			}
			r.request(false)
			r.data("x", true)
		}, []string{
			"a.req.headers", "b.req.headers", "up.headers", "a.req.data x end", "b.req.data x", "up.data x",
			"b.req.trailers", "up.trailers t=1",
		}},
		"data that a filter empties or grows": {[]string{"a"}, func(r *rig) {
			r.scripts["a"].reqData = func(_ *fakeFilter, _ *stream.Turn, b *buf.Buffer, end bool) filter.Action {
				b.Reset()
				if end {
					b.AppendString("new")
				}
				return filter.Continue
			}
			r.request(false)
			r.data("x", false)
			r.data("y", true)
		}, []string{"a.req.headers", "up.headers", "a.req.data x", "up.data ", "a.req.data y end", "up.data new end"}},
		"response waits": {[]string{"a", "b"}, func(r *rig) {
			var x filter.Resume
			r.scripts["b"].respHeaders = waitHeaders(&x, filter.Response)
			r.request(true)
			r.take()
			r.respHeaders(false)
			r.respData("x", true)
			r.resume(x)
		}, []string{
			"b.resp.headers", "a.resp.headers", "enc.headers 200", "b.resp.data x end", "a.resp.data x end",
			"enc.data x end", "log 200 - via_upstream", "up.destroy", "a.destroy", "b.destroy",
		}},
		"resume from inside the callback": {[]string{"a"}, func(r *rig) {
			r.scripts["a"].reqHeaders = func(f *fakeFilter, t *stream.Turn, _ *header.Map, _ bool) filter.Action {
				f.s.Pause(filter.Request).Continue(t)
				return filter.Wait
			}
			r.request(true)
		}, []string{"a.req.headers end", "up.headers end"}},
		"a call runs inside the stream": {[]string{"a"}, func(r *rig) {
			var x filter.Resume
			r.scripts["a"].reqHeaders = waitHeaders(&x, filter.Request)
			r.request(true)
			x.Call(r.turn, func(*stream.Turn) { r.logf("called") })
			r.resume(x)
			x.Call(r.turn, func(*stream.Turn) { r.logf("called") })
		}, []string{"a.req.headers end", "called", "up.headers end", "called"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", c.filters...)
			c.play(r)
			r.want(c.want...)
		})
	}
}

func TestBufferLimit(t *testing.T) {
	t.Parallel()
	t.Run("request over it", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a")
		r.scripts["a"].reqHeaders, r.scripts["a"].reqData = holdHeaders, holdUntilEnd
		r.request(false)
		r.data("12345678", false)
		r.take()
		r.data("9", false)
		r.want("a.req.data 123456789", "a.resp.headers", "enc.headers 413", "a.resp.data Payload Too Large end",
			"enc.data Payload Too Large end", "log 413 - request_payload_too_large", "up.destroy", "a.destroy")
	})
	t.Run("response over it", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a")
		r.scripts["a"].respHeaders, r.scripts["a"].respData = holdHeaders, holdUntilEnd
		r.request(true)
		r.respHeaders(false)
		r.take()
		r.respData("123456789", false)
		r.want("a.resp.data 123456789", "enc.headers 500", "enc.data Internal Server Error end",
			"log 500 - response_payload_too_large", "up.destroy", "a.destroy")
	})
	t.Run("a watermark stops the source", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a")
		r.scripts["a"].reqHeaders = func(f *fakeFilter, t *stream.Turn, _ *header.Map, _ bool) filter.Action {
			f.s.Watermark(t, filter.Request, true)
			return filter.Hold
		}
		r.scripts["a"].reqData = holdUntilEnd
		r.request(false)
		r.take()
		r.data("123456789", false)
		r.data("x", true)
		r.want("a.req.data 123456789", "enc.pause true", "a.req.data 123456789x end", "up.headers", "enc.pause false",
			"up.data 123456789x end")
	})
	t.Run("without the watermark the source goes on to the limit", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a")
		var f *fakeFilter
		r.scripts["a"].reqData = func(x *fakeFilter, t *stream.Turn, _ *buf.Buffer, _ bool) filter.Action {
			f = x
			f.s.Watermark(t, filter.Request, true)
			return filter.Hold
		}
		r.request(false)
		r.data("123456789", false)
		r.take()
		r.inside(func(t *stream.Turn) { f.s.Watermark(t, filter.Request, false) })
		r.want("enc.pause false")
		r.scripts["a"].reqData = func(*fakeFilter, *stream.Turn, *buf.Buffer, bool) filter.Action { return filter.Hold }
		r.data("x", false)
		r.want("a.req.data 123456789x", "a.resp.headers", "enc.headers 413", "a.resp.data Payload Too Large end",
			"enc.data Payload Too Large end", "log 413 - request_payload_too_large", "up.destroy", "a.destroy")
	})
	t.Run("a hold of nothing but the end goes on", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a")
		var x filter.Resume
		r.scripts["a"].reqData = func(f *fakeFilter, _ *stream.Turn, _ *buf.Buffer, end bool) filter.Action {
			if !end {
				return filter.Continue
			}
			x = f.s.Pause(filter.Request)
			return filter.Hold
		}
		r.request(false)
		r.data("x", false)
		r.data("", true)
		r.want("a.req.headers", "up.headers", "a.req.data x", "up.data x", "a.req.data  end")
		r.resume(x)
		r.want("up.data  end")
		r.resume(x)
		r.want()
	})
	t.Run("waiting stops the source, too", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "", "a")
		var x filter.Resume
		r.scripts["a"].reqHeaders = waitHeaders(&x, filter.Request)
		r.request(false)
		r.data("123456789", false)
		r.resume(x)
		r.want("a.req.headers", "enc.pause true", "up.headers", "enc.pause false", "a.req.data 123456789", "up.data 123456789")
	})
}

func TestBackPressure(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.request(true)
	r.respHeaders(false)
	r.enc.full = true
	r.respData("x", false)
	r.respData("y", false)
	r.enc.full = false
	r.post(stream.Event{Kind: stream.EventDrained})
	r.respData("z", true)
	r.want("up.headers end", "enc.headers 200", "enc.data x", "up.full", "enc.data y", "up.drained", "enc.data z end",
		"log 200 - via_upstream", "up.destroy")
	r = newRig(t, "")
	r.request(false)
	r.inside(func(t *stream.Turn) { r.up.s.PauseRequest(t, true) })
	r.inside(func(t *stream.Turn) { r.up.s.PauseRequest(t, true) })
	r.inside(func(t *stream.Turn) { r.up.s.PauseRequest(t, false) })
	r.want("up.headers", "enc.pause true", "enc.pause false")
}

// TestAnswerDuringRequestData has a terminal filter answer while a part of the request is being shown:
// neither gets into the other.
func TestAnswerDuringRequestData(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "a")
	r.scripts["a"].reqData = func(_ *fakeFilter, t *stream.Turn, _ *buf.Buffer, _ bool) filter.Action {
		r.up.s.RespondHeaders(t, fields(":status: 200"), false)
		r.up.s.RespondData(t, []byte("answer"), false)
		return filter.Continue
	}
	r.request(false)
	r.data("x", false)
	r.want("a.req.headers", "up.headers", "a.req.data x", "a.resp.headers", "enc.headers 200", "a.resp.data answer",
		"enc.data answer", "up.data x")
}
