// Package grpcstats counts gRPC calls and their messages (envoy.filters.http.grpc_stats).
package grpcstats

import (
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/grpchttp"
)

// Name is Envoy's name of the filter, and that of its object in the filter state.
const Name = "envoy.filters.http.grpc_stats"

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*statsv3.FilterConfig]{
		Used: "emit_filter_state individual_method_stats_allowlist stats_for_all_methods " +
			"enable_upstream_stats replace_dots_in_grpc_service_name",
	}
	listFields    = config.Fields[*corev3.GrpcMethodList]{Used: "services"}
	serviceFields = config.Fields[*corev3.GrpcMethodList_Service]{Used: "name method_names"}
)

// Config is a compiled filter.
type Config struct {
	methods *grpchttp.Methods
	allowed map[method]struct{}
	all     bool // methods have stats of their own
	dots    bool // in service names become underscores
	emit    bool
	timed   bool
}

type method struct{ service, name string }

// Entry is the filter as the binary knows it.
func Entry() filter.HTTPEntry { return filter.RegisterHTTP(Name, &statsv3.FilterConfig{}, compile) }

func compile(m *statsv3.FilterConfig, c filter.Context) (any, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	x := &Config{
		methods: grpchttp.NewMethods(c.Scope), all: m.GetStatsForAllMethods().GetValue(),
		dots: m.GetReplaceDotsInGrpcServiceName(), emit: m.GetEmitFilterState(),
		timed: m.GetEnableUpstreamStats(),
	}
	if list := m.GetIndividualMethodStatsAllowlist(); list != nil {
		p := config.Field("individual_method_stats_allowlist")
		listFields.Check(p, list, &errs)
		x.allowed = map[method]struct{}{}
		for i, s := range list.GetServices() {
			serviceFields.Check(p.Field("services").Index(i), s, &errs)
			for _, name := range s.GetMethodNames() {
				x.allowed[method{s.GetName(), name}] = struct{}{}
			}
		}
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return x, nil
}

// Filter follows one call.
type Filter struct {
	cfg       *Config
	s         filter.Stream
	stats     *grpchttp.Method // nil: nothing is counted
	request   grpchttp.Frames
	response  grpchttp.Frames
	counts    *counts
	grpc, ans bool // the request, the response is of gRPC
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
func (f *Filter) OnRequestHeaders(_ *stream.Turn, h *header.Map, _ bool) filter.Action {
	if f.grpc = grpchttp.IsRequest(h); !f.grpc {
		return filter.Continue
	}
	if f.s.Route() == nil {
		return filter.Continue
	}
	cluster := f.s.Info().Upstream.Cluster
	service, name, ok := grpchttp.SplitPath(h.Value(header.Path))
	if cluster == "" || !ok {
		return filter.Continue
	}
	if !f.cfg.all {
		if _, ok := f.cfg.allowed[method{service, name}]; !ok {
			service, name = "", ""
		}
	} else if f.cfg.dots {
		service = strings.ReplaceAll(service, ".", "_")
	}
	f.stats = f.cfg.methods.Of(cluster, "grpc", service, name)
	return filter.Continue
}

// OnRequestData implements filter.RequestData.
func (f *Filter) OnRequestData(_ *stream.Turn, b *buf.Buffer, _ bool) filter.Action {
	if !f.grpc {
		return filter.Continue
	}
	if n := f.request.Skip(b.Bytes()); n > 0 {
		f.emit()
		if f.stats != nil {
			f.stats.Requests(n)
		}
	}
	return filter.Continue
}

// OnResponseHeaders implements filter.ResponseHeaders.
func (f *Filter) OnResponseHeaders(_ *stream.Turn, h *header.Map, end bool) filter.Action {
	f.ans = grpchttp.IsResponse(h, end)
	if f.stats != nil {
		f.stats.Charge(h)
		if end {
			f.charge()
		}
	}
	return filter.Continue
}

// OnResponseData implements filter.ResponseData.
func (f *Filter) OnResponseData(_ *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	if f.ans {
		if n := f.response.Skip(b.Bytes()); n > 0 {
			f.emit()
			if f.stats != nil {
				f.stats.Responses(n)
			}
		}
	}
	if end {
		f.charge()
	}
	return filter.Continue
}

// OnResponseTrailers implements filter.ResponseTrailers.
func (f *Filter) OnResponseTrailers(_ *stream.Turn, h *header.Map) filter.Action {
	if f.stats != nil {
		f.stats.Charge(h)
	}
	f.charge()
	return filter.Continue
}

// charge records the time between the last byte of the request and that of the response.
func (f *Filter) charge() {
	i := f.s.Info()
	if !f.cfg.timed || f.stats == nil || i.LastTxUpstream == stream.Unset || i.LastRxUpstream == stream.Unset {
		return
	}
	f.stats.Time(uint64(max(i.LastRxUpstream-i.LastTxUpstream, 0).Milliseconds()))
}

// emit notes the counts in the filter state.
func (f *Filter) emit() {
	if !f.cfg.emit {
		return
	}
	if f.counts == nil {
		f.counts = &counts{}
		i := f.s.Info()
		i.SetFilterState(Name, stream.FilterObject{Value: f.counts})
	}
	f.counts.requests, f.counts.responses = f.request.Count, f.response.Count
}

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(*stream.Turn) {
	*f = Filter{}
	filters.Put(f)
}

// counts are the messages of a call, as the filter state shows them.
type counts struct{ requests, responses uint64 }

// String is what FILTER_STATE(...:PLAIN) prints.
func (c *counts) String() string {
	return strconv.FormatUint(c.requests, 10) + "," + strconv.FormatUint(c.responses, 10)
}

// AppendJSON appends the object as protobuf's JSON has it: without zeros, numbers as texts.
func (c *counts) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	if c.requests > 0 {
		b = append(strconv.AppendUint(append(b, `"requestMessageCount":"`...), c.requests, 10), '"')
	}
	if c.responses > 0 {
		if c.requests > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendUint(append(b, `"responseMessageCount":"`...), c.responses, 10), '"')
	}
	return append(b, '}')
}

// FilterStateField is what FILTER_STATE(...:FIELD:name) prints.
func (c *counts) FilterStateField(name string) (string, bool) {
	switch name {
	case "request_message_count":
		return strconv.FormatUint(c.requests, 10), true
	case "response_message_count":
		return strconv.FormatUint(c.responses, 10), true
	}
	return "", false
}
