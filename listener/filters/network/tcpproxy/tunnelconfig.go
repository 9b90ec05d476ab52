package tcpproxy

import (
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/format"
	"sidecar/internal/mutate"
)

//nolint:gochecknoglobals // immutable table
var tunnelFields = config.Fields[*tcpv3.TcpProxy_TunnelingConfig]{
	Used:    "hostname use_post headers_to_add propagate_response_headers post_path propagate_response_trailers",
	Refused: "request_id_extension request_id_header request_id_metadata_key formatters",
}

// The filter state that holds what a tunnel was answered with.
const (
	responseHeadersKey  = "envoy.tcp_proxy.propagate_response_headers"
	responseTrailersKey = "envoy.tcp_proxy.propagate_response_trailers"
)

// tunneling is a compiled TunnelingConfig.
type tunneling struct {
	host                  *format.Formatter
	add                   *mutate.Headers
	path                  string // "" for CONNECT
	keepHeaders, keepTail bool
}

func compileTunneling(m *tcpv3.TcpProxy_TunnelingConfig, env *Env, errs *config.Errors) *tunneling {
	if m == nil {
		return nil
	}
	p := config.Field("tunneling_config")
	tunnelFields.Check(p, m, errs)
	x := &tunneling{keepHeaders: m.GetPropagateResponseHeaders(), keepTail: m.GetPropagateResponseTrailers()}
	var err error
	if x.host, err = format.Compile(m.GetHostname(), env.Format); err != nil {
		errs.Wrap(p.Field("hostname"), err)
	}
	if m.GetUsePost() {
		if x.path = m.GetPostPath(); x.path == "" {
			x.path = "/"
		}
	} else if m.GetPostPath() != "" {
		errs.Add(p.Field("post_path"), "Can't set a post path when POST method isn't used")
	}
	x.add = mutate.Compile(p, "headers", m.GetHeadersToAdd(), nil, func(text string) (mutate.Formatter, error) {
		o := env.Format
		o.OmitEmpty = true
		return format.Compile(text, o)
	}, errs)
	return x
}

// request makes the head of a tunnel; secure is how the upstream is reached (HttpUpstream and
// CombinedUpstream::setRequestEncoder).
func (x *tunneling) request(h *header.Map, info *stream.Info, http2, secure bool) {
	method := "CONNECT"
	if x.path != "" {
		method = "POST"
	}
	h.AddID(header.Method, method)
	h.AddID(header.Authority, string(x.host.Append(nil, info)))
	if x.path != "" {
		h.AddID(header.Path, x.path)
		if http2 {
			scheme := "http"
			if secure {
				scheme = "https"
			}
			h.AddID(header.Scheme, scheme)
		}
	}
	if x.add != nil {
		x.add.Apply(h, info)
	}
}

// answered is the head or the trailers of an answer in the filter state.
type answered []pair

type pair struct{ name, value string }

func keep(h *header.Map) answered {
	out := make(answered, 0, h.Len())
	for i := range h.Len() {
		name, value := h.At(i)
		out = append(out, pair{string([]byte(name)), string([]byte(value))})
	}
	return out
}

// String returns the fields as JSON, as %FILTER_STATE% prints them.
func (a answered) String() string {
	m := make(map[string]any, len(a))
	for _, x := range a {
		m[x.name] = x.value
	}
	return string(format.AppendJSON(nil, m))
}

// FilterStateField implements format.Fielder.
func (a answered) FilterStateField(name string) (string, bool) {
	for _, x := range a {
		if x.name == name {
			return x.value, true
		}
	}
	return "", false
}
