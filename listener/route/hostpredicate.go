package route

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	omitcanaryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	omitmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"sidecar/cluster/lb"
	"sidecar/internal/config"
)

var (
	omitMetadataFields = config.Fields[*omitmetadatav3.OmitHostMetadataConfig]{Used: "metadata_match"}
	lbMetadataFields   = config.Fields[*corev3.Metadata]{
		Used: "filter_metadata",
		NoOp: map[string]string{
			"typed_filter_metadata": "balancing goes by the filter_metadata of envoy.lb alone, as in Envoy",
		},
	}
)

// hostPredicate compiles one of retry_host_predicate.
func (c *compiler) hostPredicate(p *config.Path, m *routev3.RetryPolicy_RetryHostPredicate, r *RetryPolicy) {
	retryPredicateFields.Check(p, m, c.errs)
	a := m.GetTypedConfig()
	if a == nil {
		c.namedPredicate(p.Field("name"), m.GetName(), r)
		return
	}
	p = p.Field("typed_config")
	const types = "envoy.extensions.retry.host."
	switch name := config.TypeName(a); name {
	case types + "previous_hosts.v3.PreviousHostsPredicate":
		_, ok := config.OpenAs[*previoushostsv3.PreviousHostsPredicate](p, a, c.errs)
		r.PreviousHosts = r.PreviousHosts || ok
	case types + "omit_canary_hosts.v3.OmitCanaryHostsPredicate":
		_, ok := config.OpenAs[*omitcanaryv3.OmitCanaryHostsPredicate](p, a, c.errs)
		r.OmitCanary = r.OmitCanary || ok
	case types + "omit_host_metadata.v3.OmitHostMetadataConfig":
		conf, ok := config.OpenAs[*omitmetadatav3.OmitHostMetadataConfig](p, a, c.errs)
		if !ok {
			return
		}
		omitMetadataFields.Check(p, conf, c.errs)
		p = p.Field("metadata_match")
		lbMetadataFields.Check(p, conf.GetMetadataMatch(), c.errs)
		if r.OmitMetadata != nil {
			c.errs.Add(p, "only one omit_host_metadata is supported")
		}
		r.OmitMetadata = &lb.Labels{Values: conf.GetMetadataMatch().GetFilterMetadata()[lb.MetadataNamespace].AsMap()}
	default:
		c.errs.Addf(p, "%s is not supported", name)
	}
}

// criteria compiles a metadata_match.
func (c *compiler) criteria(p *config.Path, m *corev3.Metadata) *lb.Criteria {
	lbMetadataFields.Check(p, m, c.errs)
	return lb.NewCriteria(m.GetFilterMetadata()[lb.MetadataNamespace].AsMap())
}

// namedPredicate takes the predicates that need no configuration.
func (c *compiler) namedPredicate(p *config.Path, name string, r *RetryPolicy) {
	switch name {
	case "envoy.retry_host_predicates.previous_hosts":
		r.PreviousHosts = true
	case "envoy.retry_host_predicates.omit_canary_hosts":
		r.OmitCanary = true
	default:
		c.errs.Addf(p, "%s is not supported", name)
	}
}
