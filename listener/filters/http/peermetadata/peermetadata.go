// Package peermetadata is Istio's HTTP filter peer_metadata (istio.metadata_exchange in filter
// chains): it learns who the peers of a request are, and tells them of this workload, in headers.
package peermetadata

import (
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/filter"
	"sidecar/api/header"
	peerpb "sidecar/api/sidecar/istio/peer"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/workload"
)

// Name is Istio's name of the filter.
const Name = "istio.metadata_exchange"

// The headers that carry a workload, and its id.
const (
	headerID = "x-envoy-peer-metadata-id"
	headerMD = "x-envoy-peer-metadata"
)

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*peerpb.Config]{
		Used: "downstream_discovery upstream_discovery downstream_propagation upstream_propagation " +
			"additional_labels",
		Refused: "shared_with_upstream",
	}
	discoveryFields = config.Fields[*peerpb.Config_DiscoveryMethod]{
		Used: "istio_headers", Refused: "baggage upstream_filter_state",
		NoOp: map[string]string{
			"workload_discovery": "needs a bootstrap extension that is refused; without it Istio's proxy finds nothing either",
		},
	}
	propagationFields = config.Fields[*peerpb.Config_PropagationMethod]{Used: "istio_headers", Refused: "baggage"}
	headersFields     = config.Fields[*peerpb.Config_IstioHeaders]{Used: "skip_external_clusters"}
)

// Env is what compiling may use.
type Env struct {
	NodeID string
	Node   *structpb.Struct // the node's metadata
	// ClusterMetadata is that of a cluster.
	ClusterMetadata func(name string) map[string]map[string]any
}

// propagate is how one side is told.
type propagate struct{ on, skipExternal bool }

// Config is a compiled filter.
type Config struct {
	env                Env
	labels             []string
	id, value          string
	discover           [2]bool // by headers: of the downstream, of the upstream
	toUp, toDownstream propagate
}

// Entry is the filter as the binary knows it.
func Entry(env Env) filter.HTTPEntry {
	return filter.RegisterHTTP(Name, &peerpb.Config{},
		func(m *peerpb.Config, _ filter.Context) (any, error) { return compile(m, env) })
}

func compile(m *peerpb.Config, env Env) (any, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	c := &Config{env: env, labels: m.GetAdditionalLabels(), id: env.NodeID}
	c.discover[0] = discovery("downstream_discovery", m.GetDownstreamDiscovery(), &errs)
	c.discover[1] = discovery("upstream_discovery", m.GetUpstreamDiscovery(), &errs)
	c.toDownstream = propagation("downstream_propagation", m.GetDownstreamPropagation(), &errs)
	c.toUp = propagation("upstream_propagation", m.GetUpstreamPropagation(), &errs)
	c.value = workload.FromNode(env.Node, c.labels).Header()
	return c, errs.Err()
}

func discovery(field string, list []*peerpb.Config_DiscoveryMethod, errs *config.Errors) (headers bool) {
	for i, d := range list {
		p := config.Field(field).Index(i)
		discoveryFields.Check(p, d, errs)
		headersFields.Check(p.Field("istio_headers"), d.GetIstioHeaders(), errs)
		headers = headers || d.GetIstioHeaders() != nil
	}
	return headers
}

func propagation(field string, list []*peerpb.Config_PropagationMethod, errs *config.Errors) (out propagate) {
	for i, d := range list {
		p := config.Field(field).Index(i)
		propagationFields.Check(p, d, errs)
		headersFields.Check(p.Field("istio_headers"), d.GetIstioHeaders(), errs)
		if h := d.GetIstioHeaders(); h != nil {
			out = propagate{on: true, skipExternal: h.GetSkipExternalClusters()}
		}
	}
	return out
}

// Filter is the filter of one stream.
type Filter struct {
	cfg *Config
	s   filter.Stream
	// What the downstream has told, which decides what it is told.
	gotID, gotMD bool
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
	if f.cfg.discover[0] {
		f.gotID, f.gotMD = f.learn(h, workload.Downstream)
	}
	if f.cfg.toUp.on && !f.skip(f.cfg.toUp.skipExternal) {
		h.Set(headerID, f.cfg.id)
		h.Set(headerMD, f.cfg.value)
	}
	return filter.Continue
}

// OnResponseHeaders implements filter.ResponseHeaders.
func (f *Filter) OnResponseHeaders(_ *stream.Turn, h *header.Map, _ bool) filter.Action {
	if f.cfg.discover[1] {
		f.learn(h, workload.Upstream)
	}
	if f.cfg.toDownstream.on && !f.skip(f.cfg.toDownstream.skipExternal) {
		if f.gotID {
			h.Set(headerID, f.cfg.id)
		}
		if f.gotMD {
			h.Set(headerMD, f.cfg.value)
		}
	}
	return filter.Continue
}

// learn reads what a peer has told and takes it out of the head.
func (f *Filter) learn(h *header.Map, key string) (id, md bool) {
	_, id = h.Get(headerID)
	text, md := h.Get(headerMD)
	if md {
		if w := workload.FromHeader(text, f.cfg.labels); w != nil {
			info := f.s.Info()
			info.SetFilterState(key, stream.FilterObject{Value: w})
		}
		h.Remove(headerMD)
	}
	if id {
		h.Remove(headerID)
	}
	return id, md
}

// skip tells whether nothing is told, since the cluster is outside the mesh or says so.
func (f *Filter) skip(external bool) bool {
	r := f.s.Route()
	if r == nil {
		return false
	}
	name := r.ClusterName()
	if external && (name == "PassthroughCluster" || strings.HasPrefix(name, "InboundPassthrough")) {
		return true
	}
	istio := f.cfg.env.ClusterMetadata(name)["istio"]
	return istio["disable_mx"] == true || external && istio["external"] == true
}

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(*stream.Turn) {
	*f = Filter{}
	filters.Put(f)
}
