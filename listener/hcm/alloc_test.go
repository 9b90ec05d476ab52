//go:build !race && !invariant

package hcm

import (
	"testing"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// TestAllocs: a request through the manager makes no garbage; its maps are the codec's.
func TestAllocs(t *testing.T) {
	r := newRig(t, "use_remote_address: true\nvia: me")
	r.quiet = true
	r.cfg.accessLogs = nil
	r.up = &fakeUpstream{r: r}
	r.enc = &fakeEncoder{r: r}
	var req, resp header.Map
	respond := func(t *stream.Turn) {
		r.up.s.RespondHeaders(t, &resp, false)
		r.up.s.RespondData(t, nil, true)
	}
	var call any = respond
	body := []byte("body")
	run := func() {
		req.Reset()
		req.AddID(header.Authority, "a")
		req.AddID(header.Path, "/")
		req.AddID(header.Method, "POST")
		resp.Reset()
		resp.AddStatic(":status", "200")
		r.enc.released.Store(false)
		to := r.conn.NewStream(r.turn, r.enc)
		to.Post(r.turn, stream.Event{Kind: stream.EventHeaders, Map: &req})
		to.Post(r.turn, stream.Event{Kind: stream.EventData, Data: body, End: true})
		to.M.Post(r.turn, to.Gen, stream.Event{To: caller{}, Kind: stream.EventCall, Ref: call})
		r.turn.End()
	}
	run()
	if !r.enc.released.Load() {
		t.Fatal("not finished")
	}
	if n := testing.AllocsPerRun(500, run); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
}
