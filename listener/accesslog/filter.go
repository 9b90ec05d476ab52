package accesslog

import (
	"math/rand/v2"
	"strconv"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/format"
	"sidecar/internal/grpchttp"
	"sidecar/internal/match"
)

// Filter decides whether a stream is logged. It doesn't block or allocate.
type Filter func(*stream.Info) bool

var (
	filterFields = config.Fields[*accesslogv3.AccessLogFilter]{
		Used: "status_code_filter duration_filter not_health_check_filter runtime_filter and_filter " +
			"or_filter header_filter response_flag_filter grpc_status_filter metadata_filter log_type_filter",
		Refused: "traceable_filter extension_filter",
	}
	comparisonFields = config.Fields[*accesslogv3.ComparisonFilter]{Used: "op value"}
	statusFields     = config.Fields[*accesslogv3.StatusCodeFilter]{Used: "comparison"}
	durationFields   = config.Fields[*accesslogv3.DurationFilter]{Used: "comparison"}
	healthFields     = config.Fields[*accesslogv3.NotHealthCheckFilter]{}
	runtimeFields    = config.Fields[*accesslogv3.RuntimeFilter]{
		Used: "runtime_key percent_sampled use_independent_randomness",
	}
	runtimeUintFields = config.Fields[*corev3.RuntimeUInt32]{Used: "default_value runtime_key"}
	andFields         = config.Fields[*accesslogv3.AndFilter]{Used: "filters"}
	orFields          = config.Fields[*accesslogv3.OrFilter]{Used: "filters"}
	headerFields      = config.Fields[*accesslogv3.HeaderFilter]{Used: "header"}
	flagFields        = config.Fields[*accesslogv3.ResponseFlagFilter]{Used: "flags"}
	grpcFields        = config.Fields[*accesslogv3.GrpcStatusFilter]{Used: "statuses exclude"}
	metadataFields    = config.Fields[*accesslogv3.MetadataFilter]{Used: "matcher match_if_key_not_found"}
	logTypeFields     = config.Fields[*accesslogv3.LogTypeFilter]{Used: "types exclude"}
)

// maxDepth bounds the nesting of and_filter and or_filter.
const maxDepth = 32

// CompileFilter compiles an access log filter; local_reply_config uses them as conditions, too.
// What is wrong is reported at p and below, and the result is then not to be used.
func CompileFilter(p *config.Path, f *accesslogv3.AccessLogFilter, o *Options, errs *config.Errors) Filter {
	config.Validate(p, f, errs)
	return compileFilter(p, f, o, errs, 0)
}

func compileFilter(
	p *config.Path, f *accesslogv3.AccessLogFilter, o *Options, errs *config.Errors, depth int,
) Filter {
	filterFields.Check(p, f, errs)
	if depth > maxDepth {
		errs.Add(p, "is nested too deeply")
		return nil
	}
	switch s := f.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		p = p.Field("status_code_filter")
		statusFields.Check(p, s.StatusCodeFilter, errs)
		compare := comparison(p.Field("comparison"), s.StatusCodeFilter.GetComparison(), o, errs)
		return func(in *stream.Info) bool { return compare(uint64(in.Status)) }
	case *accesslogv3.AccessLogFilter_DurationFilter:
		p = p.Field("duration_filter")
		durationFields.Check(p, s.DurationFilter, errs)
		compare := comparison(p.Field("comparison"), s.DurationFilter.GetComparison(), o, errs)
		return func(in *stream.Info) bool {
			// Envoy: false for a stream that isn't complete.
			return in.Complete != stream.Unset && compare(uint64(in.Complete/time.Millisecond))
		}
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		healthFields.Check(p.Field("not_health_check_filter"), s.NotHealthCheckFilter, errs)
		return func(in *stream.Info) bool { return !in.HealthCheck }
	case *accesslogv3.AccessLogFilter_RuntimeFilter:
		return compileRuntime(p.Field("runtime_filter"), s.RuntimeFilter, o, errs)
	case *accesslogv3.AccessLogFilter_AndFilter:
		p = p.Field("and_filter")
		andFields.Check(p, s.AndFilter, errs)
		return match.Every(compileAll(p, s.AndFilter.GetFilters(), o, errs, depth))
	case *accesslogv3.AccessLogFilter_OrFilter:
		p = p.Field("or_filter")
		orFields.Check(p, s.OrFilter, errs)
		return match.Some(compileAll(p, s.OrFilter.GetFilters(), o, errs, depth))
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		p = p.Field("header_filter")
		headerFields.Check(p, s.HeaderFilter, errs)
		h := match.CompileHeader(p.Field("header"), s.HeaderFilter.GetHeader(), errs)
		return func(in *stream.Info) bool { return in.Request != nil && h.Match(in.Request) }
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		return compileFlags(p.Field("response_flag_filter"), s.ResponseFlagFilter, errs)
	case *accesslogv3.AccessLogFilter_GrpcStatusFilter:
		return compileGRPC(p.Field("grpc_status_filter"), s.GrpcStatusFilter, errs)
	case *accesslogv3.AccessLogFilter_MetadataFilter:
		return compileMetadata(p.Field("metadata_filter"), s.MetadataFilter, errs)
	case *accesslogv3.AccessLogFilter_LogTypeFilter:
		return compileLogType(p.Field("log_type_filter"), s.LogTypeFilter, errs)
	}
	return nil // none, which Validate reports, or one that the table refuses
}

func compileAll(
	p *config.Path, list []*accesslogv3.AccessLogFilter, o *Options, errs *config.Errors, depth int,
) []Filter {
	out := make([]Filter, len(list))
	for i, f := range list {
		out[i] = compileFilter(p.Field("filters").Index(i), f, o, errs, depth+1)
	}
	return out
}

// comparison compiles the comparison with a number that the runtime may override.
func comparison(
	p *config.Path, c *accesslogv3.ComparisonFilter, o *Options, errs *config.Errors,
) func(uint64) bool {
	comparisonFields.Check(p, c, errs)
	runtimeUintFields.Check(p.Field("value"), c.GetValue(), errs)
	def, key, lookup := uint64(c.GetValue().GetDefaultValue()), c.GetValue().GetRuntimeKey(), o.Runtime
	limit := func() uint64 {
		if lookup != nil && key != "" {
			if v, ok := lookup(key); ok {
				return v
			}
		}
		return def
	}
	switch c.GetOp() {
	case accesslogv3.ComparisonFilter_EQ:
		return func(v uint64) bool { return v == limit() }
	case accesslogv3.ComparisonFilter_GE:
		return func(v uint64) bool { return v >= limit() }
	case accesslogv3.ComparisonFilter_LE:
		return func(v uint64) bool { return v <= limit() }
	case accesslogv3.ComparisonFilter_NE:
		return func(v uint64) bool { return v != limit() }
	}
	errs.Addf(p.Field("op"), "unknown value %d", c.GetOp())
	return nil
}

func compileRuntime(p *config.Path, f *accesslogv3.RuntimeFilter, o *Options, errs *config.Errors) Filter {
	runtimeFields.Check(p, f, errs)
	def := config.FractionalPercent(p.Field("percent_sampled"), f.GetPercentSampled(), config.Fraction{Denominator: 100}, errs)
	key, lookup, independent := f.GetRuntimeKey(), o.Runtime, f.GetUseIndependentRandomness()
	return func(in *stream.Info) bool {
		share := def
		if lookup != nil {
			if v, ok := lookup(key); ok {
				// An integer in the runtime is a percentage.
				share = config.Fraction{Numerator: uint32(min(v, 100)), Denominator: 100}
			}
		}
		random := rand.Uint64()
		if !independent {
			random = stableRandom(in.RequestID, random)
		}
		return share.Hit(random)
	}
}

// stableRandom is the request id's own number, the same in every proxy that the request passes.
func stableRandom(id string, otherwise uint64) uint64 {
	if len(id) < 8 {
		return otherwise
	}
	v, err := strconv.ParseUint(id[:8], 16, 64)
	if err != nil {
		return otherwise
	}
	return v
}

func compileFlags(p *config.Path, f *accesslogv3.ResponseFlagFilter, errs *config.Errors) Filter {
	flagFields.Check(p, f, errs)
	var want stream.Flag
	for i, name := range f.GetFlags() {
		flag, ok := stream.FlagByName(name)
		if !ok {
			errs.Addf(p.Field("flags").Index(i), "unknown response flag %q", name)
		}
		want |= flag
	}
	if len(f.GetFlags()) == 0 {
		return func(in *stream.Info) bool { return in.Flags != 0 }
	}
	return func(in *stream.Info) bool { return in.Flags&want != 0 }
}

func compileGRPC(p *config.Path, f *accesslogv3.GrpcStatusFilter, errs *config.Errors) Filter {
	grpcFields.Check(p, f, errs)
	var statuses uint64
	for _, s := range f.GetStatuses() {
		if s < 0 || s > 63 {
			errs.Addf(p.Field("statuses"), "unknown value %d", s)
			continue
		}
		statuses |= 1 << uint(s)
	}
	exclude := f.GetExclude()
	return func(in *stream.Info) bool {
		code, ok := format.GRPCStatus(in)
		if !ok {
			// Envoy looks at requests of any kind here: without a status, by the response code.
			code = int64(grpchttp.StatusFromHTTP(in.Status))
		}
		return (code >= 0 && code < 64 && statuses&(1<<uint(code)) != 0) != exclude
	}
}

func compileMetadata(p *config.Path, f *accesslogv3.MetadataFilter, errs *config.Errors) Filter {
	metadataFields.Check(p, f, errs)
	ifMissing := config.Value(f.GetMatchIfKeyNotFound(), true)
	if f.GetMatcher() == nil {
		return func(*stream.Info) bool { return ifMissing }
	}
	m := match.CompileMetadata(p.Field("matcher"), f.GetMatcher(), errs)
	namespace := f.GetMatcher().GetFilter()
	var path []string
	for _, s := range f.GetMatcher().GetPath() {
		path = append(path, s.GetKey())
	}
	return func(in *stream.Info) bool {
		if !present(in.Metadata[namespace], path) {
			return ifMissing
		}
		return m.Match(in.Metadata)
	}
}

// present tells whether metadata has something at a path.
func present(fields map[string]any, path []string) bool {
	var v any = fields
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return false
		}
		if v, ok = m[key]; !ok {
			return false
		}
	}
	return fields != nil
}

func compileLogType(p *config.Path, f *accesslogv3.LogTypeFilter, errs *config.Errors) Filter {
	logTypeFields.Check(p, f, errs)
	var types uint64
	for _, t := range f.GetTypes() {
		if t < 0 || t > 63 {
			errs.Addf(p.Field("types"), "unknown value %d", t)
			continue
		}
		types |= 1 << uint(t)
	}
	exclude := f.GetExclude()
	return func(in *stream.Info) bool { return (types&(1<<in.LogType) != 0) != exclude }
}
