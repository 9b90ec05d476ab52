package istiostats

import (
	"strconv"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/workload"
)

// grpcState is where the filter grpc_stats leaves the numbers of messages.
const grpcState = "envoy.filters.http.grpc_stats"

// HTTP is the compiled HTTP filter. It keeps nothing of a stream, so it is the filter of each.
type HTTP struct{ *Config }

// NewFilter implements filter.Factory.
func (h *HTTP) NewFilter(filter.Stream) any { return h }

// report is what reporting a stream works with.
type report struct {
	values values
	at     attributes
	key    []byte
	metric *metric
	tags   func() []stats.Tag // of metric; made once
}

func newReport() *report {
	r := &report{}
	r.tags = func() []stats.Tag { return r.metric.tags(&r.values, &r.at) }
	return r
}

//nolint:gochecknoglobals // free list
var reports = buf.Pool[report]{New: newReport}

// OnLog implements filter.Logger.
func (h *HTTP) OnLog(_ *stream.Turn, info *stream.Info) {
	c := h.Config
	c.ticker.tick(c)
	r := reports.Get()
	defer reports.Put(r)
	r.at = attributes{info: info, node: c.env.Node, id: c.env.NodeID}
	r.values.fill(c, info, c.peer(info))
	grpc := r.values.fillHTTP(info)
	c.add(requests, r, 1)
	if info.Complete != stream.Unset {
		c.record(duration, r, uint64(info.Complete/time.Millisecond))
	}
	c.record(requestBytes, r, info.DownstreamWire.WireReceived)
	c.record(responseBytes, r, info.DownstreamWire.WireSent)
	if grpc {
		c.add(requestMessages, r, messages(info, "request_message_count"))
		c.add(responseMessages, r, messages(info, "response_message_count"))
	}
	r.at, r.values = attributes{}, values{}
}

// peer finds who is at the other end.
func (c *Config) peer(info *stream.Info) *workload.Workload {
	if c.inbound {
		if w := workload.Of(info.FilterState, workload.Downstream); w != nil {
			return w
		}
		return workload.Of(info.Conn.FilterState, workload.Downstream)
	}
	if w := workload.Of(info.FilterState, workload.Upstream); w != nil {
		return w
	}
	if u := info.Upstream.Conn; u != nil {
		if w := workload.Of(u.FilterState, workload.Upstream); w != nil {
			return w
		}
	}
	if text, ok := info.Upstream.HostMetadata["istio"]["workload"].(string); ok {
		return workload.FromEndpoint(text)
	}
	return nil
}

func messages(info *stream.Info, field string) uint64 {
	f, ok := info.FilterState[grpcState].Value.(interface {
		FilterStateField(name string) (string, bool)
	})
	if !ok {
		return 0
	}
	text, _ := f.FilterStateField(field)
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// add counts in one metric.
func (c *Config) add(which int, r *report, n uint64) {
	m := &c.metrics[which]
	if m.drop || n == 0 {
		return
	}
	r.key = m.key(r.key[:0], &r.values, &r.at)
	r.metric = m
	m.vector.Counter(r.key, r.tags).Add(n)
}

func (c *Config) record(which int, r *report, n uint64) {
	m := &c.metrics[which]
	if m.drop {
		return
	}
	r.key = m.key(r.key[:0], &r.values, &r.at)
	r.metric = m
	m.vector.Histogram(r.key, r.tags).Record(n)
}
