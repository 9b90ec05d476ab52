//go:build !race && !invariant

package router

import (
	"testing"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// TestAllocs: a request on an idle connection makes no garbage.
func TestAllocs(t *testing.T) {
	r := newRig(t, "{cluster: c}")
	r.request(true)
	u := r.next()
	u.headers(true, "200")
	r.destroy()
	r.quiet = true
	var req, resp header.Map
	conn := &stream.ConnInfo{}
	turn := stream.NewTurn()
	e := &stream.Event{Kind: stream.EventHeaders, Map: &resp, End: true}
	run := func() {
		req.Reset()
		req.AddID(header.Authority, "a")
		req.AddID(header.Path, "/")
		req.AddID(header.Method, "GET")
		req.AddStatic("x-forwarded-proto", "http")
		resp.Reset()
		resp.AddStatic(":status", "200")
		r.info.Reset(turn.Now(), conn)
		r.info.Request = &req
		r.entry = r.table.Match(&req, &r.info, 0)
		r.info.Cluster = r.entry.Cluster(&req)
		f, ok := r.cfg.NewTerminal(r).(*Filter)
		if !ok {
			t.Fatal("not a filter")
		}
		f.OnRequestHeaders(turn, &req, true)
		e.Seq = f.seq
		f.Receive(turn, e)
		f.OnLog(turn, &r.info)
		f.OnDestroy(turn)
		turn.End()
	}
	run()
	if n := testing.AllocsPerRun(200, run); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
	if got := r.stat("cluster.c.upstream_rq_200"); got < 200 {
		t.Errorf("%d responses", got)
	}
}
