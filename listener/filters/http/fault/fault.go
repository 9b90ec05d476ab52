package fault

import (
	"strconv"
	"strings"
	"time"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/grpchttp"
)

// The headers by which a request asks for faults.
const (
	headerDelay         = "x-envoy-fault-delay-request"
	headerDelayShare    = "x-envoy-fault-delay-request-percentage"
	headerAbort         = "x-envoy-fault-abort-request"
	headerAbortGRPC     = "x-envoy-fault-abort-grpc-request"
	headerAbortShare    = "x-envoy-fault-abort-request-percentage"
	headerThrottle      = "x-envoy-fault-throughput-response"
	headerThrottleShare = "x-envoy-fault-throughput-response-percentage"
)

// Filter is that of one stream.
type Filter struct {
	cfg      *Config
	s        filter.Stream
	set      *Settings
	request  *header.Map
	resume   filter.Resume
	timer    *time.Timer
	active   bool
	delaying bool
	// What is slowed down.
	rate  uint64 // bytes a second; 0: not at all
	sent  uint64
	since time.Time
}

//nolint:gochecknoglobals // free list
var filters = buf.Pool[Filter]{New: func() *Filter { return new(Filter) }}

// NewFilter implements filter.Factory.
func (c *Config) NewFilter(s filter.Stream) any {
	f := filters.Get()
	f.cfg, f.s = c, s
	return f
}

// OnRequestHeaders implements filter.RequestHeaders.
func (f *Filter) OnRequestHeaders(t *stream.Turn, h *header.Map, _ bool) filter.Action {
	f.set = f.cfg.own
	if s, ok := f.s.RouteConfig().(*Settings); ok {
		f.set = s
	}
	s := f.set
	if !s.delay && !s.abort && !s.limit || !f.applies(h) {
		return filter.Continue
	}
	f.request = h
	if f.overflow() {
		f.cfg.stats.Overflow.Inc()
		return filter.Continue
	}
	f.throttle(h)
	if d := f.delay(h); d > 0 {
		f.begin()
		f.cfg.stats.Delays.Inc()
		f.node("delays_injected")
		f.s.Info().Flags |= stream.DelayInjected
		f.delaying = true
		f.resume = f.s.Pause(filter.Request)
		resume := f.resume
		f.timer = time.AfterFunc(d, func() {
			stream.Do(func(t *stream.Turn) { resume.Call(t, f.delayed) })
		})
		return filter.Wait
	}
	if f.maybeAbort(t) {
		return filter.Done
	}
	return filter.Continue
}

// delayed goes on after a delay.
func (f *Filter) delayed(t *stream.Turn) {
	if !f.delaying {
		return
	}
	f.delaying = false
	if !f.maybeAbort(t) {
		f.resume.Continue(t)
	}
}

func (f *Filter) applies(h *header.Map) bool {
	s := f.set
	if s.cluster != "" {
		if r := f.s.Route(); r == nil || r.ClusterName() != s.cluster {
			return false
		}
	}
	return (len(s.nodes) == 0 || s.nodes[h.Value(header.XEnvoyDownstreamServiceNode)]) && s.headers.Match(h)
}

func (f *Filter) overflow() bool {
	limit, set := f.set.maxActive, f.set.bounded
	if f.cfg.env.RuntimeNumber != nil {
		if n, ok := f.cfg.env.RuntimeNumber(f.set.activeKey); ok {
			limit, set = n, true
		}
	}
	return set && uint64(max(0, f.cfg.stats.Active.Value())) >= limit
}

func (f *Filter) begin() {
	if !f.active {
		f.active = true
		f.cfg.stats.Active.Inc()
	}
}

// node counts by the cluster that the client says it is of.
func (f *Filter) node(stat string) {
	name := strings.TrimSpace(f.request.Value(header.XEnvoyDownstreamServiceCluster))
	if name == "" || !f.set.perNode || !f.cfg.counts(name) {
		return
	}
	f.cfg.scope.Counter(name + "." + stat).Inc()
}

// hit decides by chance. A header may make the share smaller.
func (f *Filter) hit(s *config.RuntimeFraction, h *header.Map, name string) bool {
	v := s.Now()
	if name != "" {
		if n, ok := number(h, name); ok && n < uint64(v.Numerator) {
			v.Numerator = uint32(n)
		}
	}
	return v.Hit(f.cfg.env.Random())
}

func number(h *header.Map, name string) (uint64, bool) {
	text, ok := h.Get(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 32)
	return n, err == nil
}

func (f *Filter) delay(h *header.Map) time.Duration {
	s := f.set
	if !s.delay {
		return 0
	}
	if s.delayByHeader {
		ms, ok := number(h, headerDelay)
		if !ok || !f.hit(&s.delayShare, h, headerDelayShare) {
			return 0
		}
		return time.Duration(ms) * time.Millisecond
	}
	if !f.hit(&s.delayShare, h, "") {
		return 0
	}
	if f.cfg.env.RuntimeNumber != nil {
		if ms, ok := f.cfg.env.RuntimeNumber(s.delayKey); ok {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return s.delayTime
}

// maybeAbort answers the request if it is to be aborted.
func (f *Filter) maybeAbort(t *stream.Turn) bool {
	s := f.set
	if !s.abort {
		return false
	}
	status, grpc := s.httpStatus, s.grpcStatus
	name := ""
	if s.abortByHeader {
		name = headerAbortShare
		n, ok := number(f.request, headerAbort)
		if ok && (n < 200 || n >= 600) {
			ok = false
		}
		status = int(n)
		if g, is := number(f.request, headerAbortGRPC); !ok && is {
			status, grpc, ok = 200, int(g), true
		}
		if !ok {
			return false
		}
	}
	if !f.hit(&s.abortShare, f.request, name) {
		return false
	}
	if f.cfg.env.RuntimeNumber != nil && !s.abortByHeader {
		if n, ok := f.cfg.env.RuntimeNumber(s.statusKey); ok && s.grpcStatus < 0 {
			status = int(n)
		}
		if n, ok := f.cfg.env.RuntimeNumber(s.grpcKey); ok && s.grpcStatus >= 0 {
			grpc = int(n)
		}
	}
	if grpc >= 0 && status == 0 {
		status = grpchttp.HTTPFromStatus(strconv.Itoa(grpc))
	}
	f.begin()
	f.cfg.stats.Aborts.Inc()
	f.node("aborts_injected")
	f.s.Reply(t, &filter.Reply{
		Status: status, Body: "fault filter abort", Details: "fault_filter_abort", Flag: stream.FaultInjected,
		GRPCStatus: grpc,
	})
	return true
}

func (f *Filter) throttle(h *header.Map) {
	s := f.set
	if !s.limit {
		return
	}
	rate, name := s.limitBytes, ""
	if s.limitByHeader {
		n, ok := number(h, headerThrottle)
		if !ok || n == 0 {
			return
		}
		rate, name = n<<10, headerThrottleShare
	}
	if !f.hit(&s.limitBy, h, name) {
		return
	}
	f.begin()
	f.cfg.stats.Limited.Inc()
	f.rate = rate
}

// OnResponseData implements filter.ResponseData.
func (f *Filter) OnResponseData(t *stream.Turn, data *buf.Buffer, _ bool) filter.Action {
	if f.rate == 0 || data.Len() == 0 {
		return filter.Continue
	}
	if f.since.IsZero() {
		f.since = t.Now()
	}
	f.sent += uint64(data.Len())
	due := f.since.Add(time.Duration(float64(f.sent) / float64(f.rate) * float64(time.Second)))
	wait := due.Sub(t.Now())
	if wait <= 0 {
		return filter.Continue
	}
	resume := f.s.Pause(filter.Response)
	f.timer = time.AfterFunc(wait, func() { stream.Do(resume.Continue) })
	return filter.Wait
}

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(*stream.Turn) {
	if f.timer != nil {
		f.timer.Stop()
	}
	if f.active {
		f.cfg.stats.Active.Dec()
	}
	*f = Filter{}
	filters.Put(f)
}
