// Package router is the terminal HTTP filter (envoy.filters.http.router): it finds the cluster of a
// request, sends it to a host, repeats it when the route's retry policy says so, and passes the
// response back.
//
// One Filter serves one stream and is pooled. Its current attempt is a number: events of the pool and
// of the upstream codec carry it, and those of an attempt that was given up are dropped.
package router

import (
	"time"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/lb"
	"sidecar/internal/buf"
	"sidecar/internal/grpchttp"
	"sidecar/listener/route"
)

// Clusters finds clusters by name.
type Clusters interface {
	Get(name string) *cluster.Cluster
}

// Stats are the router's, in the connection manager's prefix.
type Stats struct {
	NoRoute          stats.Counter `stat:"no_route"`
	NoCluster        stats.Counter `stat:"no_cluster"`
	RqRedirect       stats.Counter `stat:"rq_redirect"`
	RqDirectResponse stats.Counter `stat:"rq_direct_response"`
	RqTotal          stats.Counter `stat:"rq_total"`
	RqResetAfterHead stats.Counter `stat:"rq_reset_after_downstream_response_started"`
}

// Config is a compiled router.
type Config struct {
	stats           *Stats
	clusters        Clusters
	suppressHeaders bool
	respectExpected bool
	groups          *groups
	localAddress    string
	random          func() uint64
}

// The deadlines that the router arms.
const (
	deadlineRoute = iota
	deadlineTry
	deadlineTryIdle
	deadlineBackoff
	deadlineMaxDuration
)

// Filter is the router of one stream.
type Filter struct {
	cfg      *Config
	s        filter.Terminal
	info     *stream.Info
	entry    *route.Entry
	cluster  *cluster.Cluster
	settings *cluster.Settings
	request  *header.Map

	attempt  cluster.Attempt
	ctx      cluster.Context
	enc      stream.Encoder // of the current attempt, nil before it is ready
	seq      uint32
	sizes    cluster.Sizes    // of the current attempt
	response cluster.Response // as charged
	timeouts timeouts
	retry    retryState
	cookies  []string       // that hash policies have the response set
	groups   [2]*groupStats // of the virtual cluster and of the route
	mirrors  []mirror       // that are still to get the request

	shadowHead *header.Map // the head as mirrors get it; nil without mirrors
	body       buf.Buffer  // what a retry would have to send again
	bodyLimit  int
	sent       time.Time // when the current attempt's head was sent
	trailers   *header.Map
	keepBody   bool
	bodyLost   bool // too much for the buffer: no retry any more
	unkept     bool // a part of the body was sent and is not kept
	grpc       bool // the request is a call
	callOpen   bool // its success shows in the trailers
	replays    uint8
	ended      bool // the request is complete
	headSent   bool // to the upstream
	gotHead    bool // of the response
	gotInterim bool // a 1xx head of this attempt
	payload    payload
	timedOut   bool // the attempt before this one did
	trying     bool // an attempt is under way
	done       bool
	paused     bool // the upstream is full
	respPaused bool
	sentEnd    bool
	headEnd    bool      // the head came with the end of the request
	completed  time.Time // when the request was complete
}

//nolint:gochecknoglobals // free list
var filters = buf.Pool[Filter]{New: func() *Filter { return new(Filter) }}

var (
	_ filter.RequestHeaders  = (*Filter)(nil)
	_ filter.RequestData     = (*Filter)(nil)
	_ filter.RequestTrailers = (*Filter)(nil)
	_ filter.ResponseDrained = (*Filter)(nil)
	_ filter.DeadlineHandler = (*Filter)(nil)
	_ filter.Destroyer       = (*Filter)(nil)
)

// NewTerminal implements filter.TerminalFactory.
func (c *Config) NewTerminal(s filter.Terminal) any {
	r := filters.Get()
	r.cfg, r.s, r.info = c, s, s.Info()
	return r
}

// OnRequestHeaders begins the request's way upstream.
func (r *Filter) OnRequestHeaders(t *stream.Turn, h *header.Map, end bool) filter.Action {
	r.cfg.stats.RqTotal.Inc()
	r.request, r.ended, r.headEnd = h, end, end
	r.grpc = grpchttp.IsRequest(h)
	if end {
		r.completed = t.Now()
	}
	if e, ok := r.s.Route().(*route.Entry); ok {
		r.entry = e
	}
	if r.entry == nil {
		r.cfg.stats.NoRoute.Inc()
		r.s.Reply(t, &noRoute)
		return filter.Done
	}
	if r.answer(t) {
		return filter.Done
	}
	if !r.findCluster(t) {
		return filter.Done
	}
	if r.dropped(t) {
		return filter.Done
	}
	r.prepare(t)
	r.start(t)
	return filter.Continue
}

// answer sends the response of a route that has one of its own.
func (r *Filter) answer(t *stream.Turn) bool {
	e := r.entry
	switch e.Kind {
	case route.Forward:
		return false
	case route.NonForwarding:
		r.cfg.stats.NoRoute.Inc()
		r.s.Reply(t, &noRoute)
		return true
	case route.Redirect, route.DirectResponse:
		// Envoy has rq_redirect in its list, too, and never counts there.
		r.cfg.stats.RqDirectResponse.Inc()
	}
	info := r.info
	location := e.Location(r.request, info, !r.cfg.suppressHeaders)
	r.s.Reply(t, &filter.Reply{
		Status: e.Status, Body: e.ResponseBody(info), Details: "direct_response", GRPCStatus: -1,
		Headers: func(h *header.Map) {
			if e.ContentType != "" {
				h.SetStatic(header.ContentType, e.ContentType)
			}
			if location != "" {
				h.SetID(header.Location, location)
			}
			e.FinalizeResponse(h, info)
		},
	})
	return true
}

func (r *Filter) findCluster(t *stream.Turn) bool {
	name := r.info.Cluster // of the route, as it was found
	r.cluster = nil
	if name != "" {
		r.cluster = r.cfg.clusters.Get(name)
	}
	if r.cluster == nil {
		r.cfg.stats.NoCluster.Inc()
		reply := noCluster
		reply.Status = r.entry.Action.ClusterNotFoundStatus
		r.s.Reply(t, &reply)
		return false
	}
	conf := r.cluster.Config()
	r.settings = conf.Settings
	r.info.Upstream.Cluster = conf.ObservabilityName()
	r.info.ClusterMetadata = conf.Metadata
	return true
}

// dropped answers a request that the cluster's drop_overloads sends away.
func (r *Filter) dropped(t *stream.Turn) bool {
	f := r.cluster.DropOverload()
	if f == nil {
		return false
	}
	r.done = true
	r.s.Reply(t, &filter.Reply{
		Status: f.Status, Body: f.Body, Details: f.Details, Flag: f.Flag, GRPCStatus: -1, Fault: f,
		Headers: func(h *header.Map) { h.SetStatic(header.XEnvoyOverloaded, "true") },
	})
	return true
}

// prepare reads what the request and the route say of timeouts and retries, and finishes the head.
func (r *Filter) prepare(t *stream.Turn) {
	r.timeouts.read(r)
	r.retry.read(r)
	r.findGroups()
	r.entry.FinalizeRequest(r.request, r.info, !r.cfg.suppressHeaders)
	if r.cluster.Divided() {
		// What filters have written of the request goes before what the route says.
		r.ctx.Criteria = r.entry.Criteria.Merge(lb.NewCriteria(r.info.Metadata[lb.MetadataNamespace]))
	}
	if r.cluster.Hashes() {
		hashed := r.entry.Action.Hash(r.request, r.info)
		r.ctx.Hash, r.ctx.HasHash, r.cookies = hashed.Hash, hashed.OK, hashed.SetCookies
	}
	r.timeouts.announce(r)
	r.ctx.Ask = r.cluster.Ask(r.request, r.request.Value(header.Authority), r.info)
	r.bodyLimit = int(min(r.entry.BufferLimit, uint64(r.settings.BufferLimit)))
	r.keepBody = r.retry.enabled()
	r.payload = payloadOf(r.request)
	if len(r.entry.Action.Mirrors) > 0 {
		r.findMirrors()
	}
	if r.ended {
		r.sendShadows(t)
	}
	if r.timeouts.route > 0 {
		if r.ended {
			r.s.Arm(t, deadlineRoute, r.timeouts.route)
		}
	}
	if d := r.settings.HTTP.MaxStreamDuration; d > 0 {
		r.s.Arm(t, deadlineMaxDuration, d)
	}
}

// OnRequestData passes a part of the body on, and keeps it while it may have to be repeated.
func (r *Filter) OnRequestData(t *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	if r.done {
		return filter.Continue
	}
	p := b.Bytes()
	if end {
		r.requestComplete(t)
	}
	waiting := r.enc == nil || r.payload.waits()
	if r.keepBody || waiting {
		if r.body.Len()+len(p) > r.bodyLimit {
			if waiting {
				// Not sent yet and over the limit: the source stops until the upstream is there.
				r.pause(t, true)
			}
			r.giveUpReplay(waiting)
		}
		if r.keepBody || waiting {
			r.body.Append(p)
		}
	}
	if end {
		r.sendShadows(t)
	}
	if waiting {
		return filter.Continue
	}
	r.send(t, p, end)
	return filter.Continue
}

// giveUpReplay stops keeping the body for a retry; what was never sent must be kept.
func (r *Filter) giveUpReplay(unsent bool) {
	if r.keepBody {
		r.keepBody, r.bodyLost = false, true
		if len(r.mirrors) > 0 || r.retry.enabled() {
			r.cluster.Traffic().RetryOrShadowAbandon.Inc()
		}
		r.mirrors = r.mirrors[:0]
		r.retry.giveUp()
	}
	if !unsent {
		r.body.Reset()
	}
}

// OnRequestTrailers ends the request.
func (r *Filter) OnRequestTrailers(t *stream.Turn, h *header.Map) filter.Action {
	if r.done {
		return filter.Continue
	}
	r.trailers = h
	r.requestComplete(t)
	r.sendShadows(t)
	if r.enc != nil && !r.payload.waits() {
		r.sendTrailers(t)
	}
	return filter.Continue
}

// requestComplete starts the timers that run from the end of the request.
func (r *Filter) requestComplete(t *stream.Turn) {
	r.ended = true
	r.completed = t.Now()
	if r.timeouts.route > 0 {
		r.s.Arm(t, deadlineRoute, r.timeouts.route)
	}
	if r.enc != nil {
		r.startTry(t)
	}
}

func (r *Filter) send(t *stream.Turn, p []byte, end bool) {
	r.sentEnd = end
	if len(p) == 0 && !end {
		return // a filter has taken all of it
	}
	r.unkept = r.unkept || !r.keepBody && len(p) > 0
	r.sizes.RequestBody += uint64(len(p))
	r.enc.EncodeData(t, p, end)
	if end {
		r.lastByte(t)
		return
	}
	if r.enc.Full() {
		r.pause(t, true)
	}
}

// sendTrailers ends the request; trailers that a filter has emptied are only an end.
func (r *Filter) sendTrailers(t *stream.Turn) {
	r.sentEnd = true
	if r.trailers.Len() == 0 {
		r.enc.EncodeData(t, nil, true)
	} else {
		r.enc.EncodeTrailers(t, r.trailers)
	}
	r.lastByte(t)
}

func (r *Filter) lastByte(t *stream.Turn) { r.info.LastTxUpstream = r.info.Since(t.Now()) }

func (r *Filter) pause(t *stream.Turn, on bool) {
	if r.paused != on {
		r.paused = on
		r.s.PauseRequest(t, on)
	}
}

// OnResponseFull stops the upstream, since the downstream takes no more.
func (r *Filter) OnResponseFull(t *stream.Turn) {
	r.respPaused = true
	if r.enc != nil {
		r.enc.Pause(t, true)
	}
}

// OnResponseDrained lets it go on.
func (r *Filter) OnResponseDrained(t *stream.Turn) {
	r.respPaused = false
	if r.enc != nil {
		r.enc.Pause(t, false)
	}
}

// OnLog completes the record with what the upstream codec has counted.
func (r *Filter) OnLog(*stream.Turn, *stream.Info) {
	if r.enc != nil {
		r.info.UpstreamWire = r.enc.Traffic()
	}
}

// OnDestroy lets go of the upstream, cancelling what is still under way.
func (r *Filter) OnDestroy(t *stream.Turn) {
	r.abandon(t)
	r.retry.release(r)
	r.body.Reset()
	*r = Filter{}
	filters.Put(r)
}
