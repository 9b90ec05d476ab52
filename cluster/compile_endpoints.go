package cluster

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sidecar/cluster/host"
	"sidecar/internal/config"
)

type (
	protoField = protoreflect.FieldDescriptor
	protoValue = protoreflect.Value
)

var (
	assignmentFields = config.Fields[*endpointv3.ClusterLoadAssignment]{
		Used:    "cluster_name endpoints policy",
		Refused: "named_endpoints",
	}
	policyFields = config.Fields[*endpointv3.ClusterLoadAssignment_Policy]{
		Used: "drop_overloads overprovisioning_factor endpoint_stale_after weighted_priority_health",
	}
	dropFields = config.Fields[*endpointv3.ClusterLoadAssignment_Policy_DropOverload]{
		Used: "category drop_percentage",
	}
	localityFields = config.Fields[*endpointv3.LocalityLbEndpoints]{
		Used:    "locality lb_endpoints load_balancing_weight priority load_balancer_endpoints metadata",
		Refused: "leds_cluster_locality_config",
		NoOp: map[string]string{
			"proximity": "Envoy does not read it (LocalityLbEndpoints.proximity: not implemented)",
		},
	}
	lbEndpointListFields = config.Fields[*endpointv3.LocalityLbEndpoints_LbEndpointList]{Used: "lb_endpoints"}
	localityNameFields   = config.Fields[*corev3.Locality]{Used: "region zone sub_zone"}
	lbEndpointFields     = config.Fields[*endpointv3.LbEndpoint]{
		Used:    "endpoint health_status metadata load_balancing_weight",
		Refused: "endpoint_name",
	}
	endpointFields = config.Fields[*endpointv3.Endpoint]{
		Used: "address hostname additional_addresses health_check_config",
		NoOp: map[string]string{
			"observability_name": "names per-endpoint statistics, which are refused (track_cluster_stats)",
		},
	}
	checkFields = config.Fields[*endpointv3.Endpoint_HealthCheckConfig]{
		Used: "port_value hostname address disable_active_health_check",
	}
	additionalAddressFields = config.Fields[*endpointv3.Endpoint_AdditionalAddress]{Used: "address"}
)

// defaultAttr are the attributes of a host without any.
//
//nolint:gochecknoglobals // immutable
var defaultAttr = &host.Attributes{Weight: 1}

// attrKey identifies equal attributes; metadata by its serialized form.
type attrKey struct {
	locality         host.Locality
	metadata         string
	localityMetadata string
	weight, priority uint32
	health           host.Health
	located          bool
	check            host.Check
	checked          bool
}

// CompileAssignment checks the endpoints of an EDS cluster and compiles them.
func compileEDS(msg *endpointv3.ClusterLoadAssignment, env Env) (assignment, error) {
	var errs config.Errors
	config.Validate(nil, msg, &errs)
	a := compileAssignment(nil, msg, env, false, &errs)
	return a, errs.Err()
}

func compileAssignment(p *config.Path, msg *endpointv3.ClusterLoadAssignment, env Env, names bool,
	errs *config.Errors,
) assignment {
	var out assignment
	if msg == nil {
		return out
	}
	assignmentFields.Check(p, msg, errs)
	out.policy = compilePolicy(p.Field("policy"), msg.GetPolicy(), errs)
	out.staleAfter = config.Duration(p.Field("policy").Field("endpoint_stale_after"),
		msg.GetPolicy().GetEndpointStaleAfter(), 0, errs)
	out.localities = make([]localityConfig, 0, len(msg.GetEndpoints()))
	for i, l := range msg.GetEndpoints() {
		c := localityCompiler{env: env, names: names, errs: errs}
		out.add(c.compile(p.Field("endpoints").Index(i), l))
	}
	out.checkPriorities(p, errs)
	return out
}

// add appends a locality, or joins it with one of the same name and priority that is there already
// (PriorityStateManager::registerHostForPriority).
func (a *assignment) add(l localityConfig) {
	for i := range a.localities {
		have := &a.localities[i]
		same := have.locality == l.locality || have.locality != nil && l.locality != nil && *have.locality == *l.locality
		if same && have.priority == l.priority {
			have.hosts = append(have.hosts, l.hosts...)
			return
		}
	}
	a.localities = append(a.localities, l)
}

// checkPriorities: Envoy refuses more than 128 (the field's own limit); gaps are allowed.
func (a *assignment) checkPriorities(p *config.Path, errs *config.Errors) {
	const most = 128
	for i := range a.localities {
		if a.localities[i].priority > most {
			errs.Addf(p.Field("endpoints").Index(i).Field("priority"), "must be at most %d", most)
		}
	}
}

func compilePolicy(p *config.Path, msg *endpointv3.ClusterLoadAssignment_Policy, errs *config.Errors) host.Policy {
	out := host.Policy{Overprovision: 140}
	if msg == nil {
		return out
	}
	policyFields.Check(p, msg, errs)
	out.Overprovision = config.Value(msg.GetOverprovisioningFactor(), 140)
	out.WeightedHealth = msg.GetWeightedPriorityHealth()
	for i, d := range msg.GetDropOverloads() {
		at := p.Field("drop_overloads").Index(i)
		dropFields.Check(at, d, errs)
		f := config.FractionalPercent(at.Field("drop_percentage"), d.GetDropPercentage(),
			config.Fraction{Numerator: 0, Denominator: 100}, errs)
		millionths := uint64(f.Numerator) * 1_000_000 / uint64(max(1, f.Denominator))
		out.Drops = append(out.Drops, host.Drop{
			Category: d.GetCategory(), PerMillion: uint32(min(millionths, 1_000_000)),
		})
	}
	if len(out.Drops) > 1 {
		// Envoy: "Only one drop category is supported now."
		errs.Add(p.Field("drop_overloads"), "at most one drop_overload is supported")
	}
	return out
}

type localityCompiler struct {
	env   Env
	names bool
	errs  *config.Errors
	// Of the locality, in both forms.
	metadata    host.Metadata
	metadataKey string
}

// serialized identifies metadata; "" is none.
func (c *localityCompiler) serialized(p *config.Path, m *corev3.Metadata, compiled host.Metadata) string {
	if compiled == nil {
		return ""
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		c.errs.Addf(p, "%w", err)
	}
	return string(raw)
}

func (c *localityCompiler) compile(p *config.Path, l *endpointv3.LocalityLbEndpoints) localityConfig {
	localityFields.Check(p, l, c.errs)
	out := localityConfig{weight: l.GetLoadBalancingWeight().GetValue(), priority: l.GetPriority()}
	if n := l.GetLocality(); n != nil && (n.GetRegion() != "" || n.GetZone() != "" || n.GetSubZone() != "") {
		localityNameFields.Check(p.Field("locality"), n, c.errs)
		out.locality = &host.Locality{Region: n.GetRegion(), Zone: n.GetZone(), SubZone: n.GetSubZone()}
	}
	c.metadata = compileMetadata(p.Field("metadata"), l.GetMetadata(), c.errs)
	c.metadataKey = c.serialized(p.Field("metadata"), l.GetMetadata(), c.metadata)
	list, at := l.GetLbEndpoints(), p.Field("lb_endpoints")
	if in := l.GetLoadBalancerEndpoints(); in != nil { //nolint:staticcheck // deprecated, still read by Envoy
		at = p.Field("load_balancer_endpoints")
		lbEndpointListFields.Check(at, in, c.errs)
		list, at = in.GetLbEndpoints(), at.Field("lb_endpoints")
	}
	out.hosts = make([]endpointConfig, 0, len(list))
	for i, e := range list {
		if h, ok := c.endpoint(at.Index(i), e, &out); ok {
			out.hosts = append(out.hosts, h)
		}
	}
	if out.locality != nil && len(out.hosts) > 0 {
		out.locality = out.hosts[0].attr.Locality // the shared one
	}
	return out
}

func (c *localityCompiler) endpoint(p *config.Path, e *endpointv3.LbEndpoint, l *localityConfig) (endpointConfig, bool) {
	lbEndpointFields.Check(p, e, c.errs)
	ep := e.GetEndpoint()
	if ep == nil {
		c.errs.Add(p.Field("endpoint"), "is required")
		return endpointConfig{}, false
	}
	out := endpointConfig{hostname: ep.GetHostname(), attr: c.attributes(p, e, l)}
	p = p.Field("endpoint")
	endpointFields.Check(p, ep, c.errs)
	var ok bool
	out.addr, ok = compileAddress(p.Field("address"), ep.GetAddress(), c.names, c.errs)
	for i, a := range ep.GetAdditionalAddresses() {
		at := p.Field("additional_addresses").Index(i)
		additionalAddressFields.Check(at, a, c.errs)
		more, good := compileAddress(at.Field("address"), a.GetAddress(), false, c.errs)
		out.more = append(out.more, more)
		ok = ok && good
	}
	if out.addr.name != "" && len(out.more) > 0 {
		c.errs.Add(p.Field("additional_addresses"), "must be empty for a name that DNS resolves")
	}
	return out, ok
}

func (c *localityCompiler) attributes(p *config.Path, e *endpointv3.LbEndpoint, l *localityConfig) *host.Attributes {
	k := attrKey{
		weight: config.Value(e.GetLoadBalancingWeight(), 1), priority: l.priority,
		health: healthOf(e.GetHealthStatus()), localityMetadata: c.metadataKey,
	}
	if l.locality != nil {
		k.locality, k.located = *l.locality, true
	}
	metadata := compileMetadata(p.Field("metadata"), e.GetMetadata(), c.errs)
	k.metadata = c.serialized(p.Field("metadata"), e.GetMetadata(), metadata)
	locality := c.metadata
	if x := e.GetEndpoint().GetHealthCheckConfig(); x != nil {
		k.check, k.checked = c.check(p.Field("endpoint").Field("health_check_config"), x), true
	}
	if k == (attrKey{weight: 1}) {
		return defaultAttr
	}
	return c.env.Intern.attrs.get(k, func() *host.Attributes {
		a := &host.Attributes{Weight: k.weight, Priority: k.priority, Health: k.health, Metadata: metadata}
		a.LocalityMetadata = locality
		if k.located {
			a.Locality = &k.locality
		}
		if k.checked {
			a.Check = &k.check
		}
		a.Canary, _ = metadata["envoy.lb"]["canary"].(bool)
		return a
	})
}

// check compiles how a host's active health checks differ from the others'.
func (c *localityCompiler) check(p *config.Path, m *endpointv3.Endpoint_HealthCheckConfig) host.Check {
	checkFields.Check(p, m, c.errs)
	if m.GetPortValue() > 65535 {
		c.errs.Add(p.Field("port_value"), "must be at most 65535")
	}
	out := host.Check{
		Port: uint16(m.GetPortValue()), Hostname: m.GetHostname(), Disabled: m.GetDisableActiveHealthCheck(),
	}
	if m.GetAddress() != nil {
		a, _ := compileAddress(p.Field("address"), m.GetAddress(), false, c.errs)
		out.Addr = a.addr
	}
	return out
}

func healthOf(s corev3.HealthStatus) host.Health {
	switch s {
	case corev3.HealthStatus_HEALTHY:
		return host.Healthy
	case corev3.HealthStatus_UNHEALTHY:
		return host.Unhealthy
	case corev3.HealthStatus_DRAINING:
		return host.Draining
	case corev3.HealthStatus_TIMEOUT:
		return host.Timeout
	case corev3.HealthStatus_DEGRADED:
		return host.Degraded
	case corev3.HealthStatus_UNKNOWN:
	}
	return host.Unknown
}
