package bootstrap

import (
	"os"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/config"
	"sidecar/internal/config/source"
)

// Input is where the bootstrap comes from, and the flags that have a say in it.
type Input struct {
	// Path is a file, YAML a text that is merged over it; at least one is set.
	Path, YAML string
	// Unknown says what becomes of unknown fields.
	Unknown config.Unknown
	// ServiceNode, ServiceCluster and ServiceZone take the place of the node's, where they are set.
	ServiceNode, ServiceCluster, ServiceZone string
	// LogFormatSet tells that a flag gives the log format, which the bootstrap then must not.
	LogFormatSet bool
}

// Bootstrap is a compiled bootstrap. Nobody changes it. The protobuf messages in it are for their
// compilers, at the start; who keeps the Bootstrap calls [Bootstrap.Drop] first.
type Bootstrap struct {
	// Node is what the process says of itself to management servers, without what xds.Node adds.
	Node *corev3.Node

	Listeners []*listenerv3.Listener
	Clusters  []*clusterv3.Cluster
	Secrets   []*tlsv3.Secret
	// Services are the plugins of bootstrap_extensions.
	Services   []WasmService
	StatsSinks []*metricsv3.StatsSink
	// LDS, CDS and ADS are nil where the bootstrap has none.
	LDS, CDS *source.ConfigSource
	ADS      *source.GRPC
	// UpstreamBind is cluster_manager.upstream_bind_config, the default of all clusters; may be
	// nil.
	UpstreamBind *corev3.BindConfig

	// Admin is nil where there is no admin server to start.
	Admin    *Admin
	Runtime  []RuntimeLayer
	Stats    Stats
	Overload Overload
	// LogFormat is a pattern for the log; empty: the bootstrap has none.
	LogFormat string

	// UnknownFields counts the fields that were let through with a warning.
	UnknownFields int

	// Bytes is the serialized bootstrap, for /config_dump. What is sensitive in it is redacted.
	Bytes []byte
}

// Drop lets go of the protobuf messages that were handed on.
func (b *Bootstrap) Drop() {
	b.Listeners, b.Clusters, b.Secrets, b.UpstreamBind = nil, nil, nil, nil
	b.Services, b.StatsSinks = nil, nil
	if b.Admin != nil {
		b.Admin.AccessLog = nil
	}
}

// ListenerPath is the place of a static listener, for the errors of its compiler.
func ListenerPath(i int) *config.Path { return config.Field("static_resources.listeners").Index(i) }

// ClusterPath is the place of a static cluster, for the errors of its compiler.
func ClusterPath(i int) *config.Path { return config.Field("static_resources.clusters").Index(i) }

// SecretPath is the place of a static secret, for the errors of its compiler.
func SecretPath(i int) *config.Path { return config.Field("static_resources.secrets").Index(i) }

// inlineName is how errors call --config-yaml.
const inlineName = "--config-yaml"

// Load reads and compiles the bootstrap. The result is never nil: together with an error it holds
// what could be read, for the other compilers to find more that is wrong.
func Load(in Input) (b *Bootstrap, warnings []error, err error) {
	var msg bootstrapv3.Bootstrap
	var errs config.Errors
	if in.Path == "" && in.YAML == "" {
		errs.Add(nil, "at least one of --config-path and --config-yaml is needed")
	}
	if in.Path != "" {
		warned, err := config.Load(in.Path, &msg, in.Unknown)
		errs.Wrap(nil, err)
		warnings = append(warnings, warned...)
	}
	if in.YAML != "" {
		var over bootstrapv3.Bootstrap
		warned, err := config.Parse(inlineName, config.YAML, []byte(in.YAML), &over, in.Unknown)
		errs.Wrap(nil, err)
		warnings = append(warnings, warned...)
		proto.Merge(&msg, &over)
	}
	unknown := len(warnings)
	b, warned := compile(&msg, &in, &errs)
	b.UnknownFields = unknown
	return b, append(warnings, warned...), in.Locate(errs.Err())
}

// Locate adds file and line to errors that have only a path.
func (in *Input) Locate(err error) error {
	if err == nil {
		return nil
	}
	if in.Path != "" {
		// A file that can't be read now is an error already.
		if data, readErr := os.ReadFile(in.Path); readErr == nil {
			err = config.Locate(in.Path, config.FormatOf(in.Path), data, err)
		}
	}
	if in.YAML != "" {
		err = config.Locate(inlineName, config.YAML, []byte(in.YAML), err)
	}
	return err
}

func compile(msg *bootstrapv3.Bootstrap, in *Input, errs *config.Errors) (b *Bootstrap, warnings []error) {
	bootstrapFields.Check(nil, msg, errs)
	config.Validate(nil, msg, errs)
	b = &Bootstrap{
		Node:      node(msg.GetNode(), in),
		Listeners: msg.GetStaticResources().GetListeners(),
		Clusters:  msg.GetStaticResources().GetClusters(),
		Secrets:   msg.GetStaticResources().GetSecrets(),
		Admin:     admin(msg.GetAdmin(), errs),
		Runtime:   runtimeLayers(msg.GetLayeredRuntime(), errs),
		Overload:  overload(msg.GetOverloadManager(), errs),
		LogFormat: logFormat(msg.GetApplicationLogConfig(), in, errs),
	}
	nodeFields.Check(config.Field("node"), msg.GetNode(), errs)
	staticFields.Check(config.Field("static_resources"), msg.GetStaticResources(), errs)
	deferredStatFields.Check(config.Field("deferred_stat_options"), msg.GetDeferredStatOptions(), errs)
	clusterManagerFields.Check(config.Field("cluster_manager"), msg.GetClusterManager(), errs)
	b.UpstreamBind = msg.GetClusterManager().GetUpstreamBindConfig()
	b.dynamicResources(msg.GetDynamicResources(), errs)
	b.Stats, warnings = stats(msg.GetStatsConfig(), errs)
	b.Stats.flush(msg, errs)
	b.Services = extensions(msg.GetBootstrapExtensions(), errs)
	b.StatsSinks = msg.GetStatsSinks()
	inlineHeaders(msg.GetInlineHeaders(), errs)
	unique("listener", names(b.Listeners), ListenerPath, errs)
	unique("cluster", names(b.Clusters), ClusterPath, errs)

	shown, _ := proto.Clone(msg).(*bootstrapv3.Bootstrap)
	config.Redact(shown)
	var err error
	if b.Bytes, err = (proto.MarshalOptions{Deterministic: true}).Marshal(shown); err != nil {
		errs.Addf(nil, "%w", err)
	}
	return b, warnings
}

func (b *Bootstrap) dynamicResources(msg *bootstrapv3.Bootstrap_DynamicResources, errs *config.Errors) {
	const path = "dynamic_resources"
	dynamicFields.Check(config.Field(path), msg, errs)
	compileSource := func(cs *corev3.ConfigSource, field string) *source.ConfigSource {
		if cs == nil {
			return nil
		}
		out, err := source.Compile(cs, path+"."+field)
		errs.Wrap(nil, err)
		return out
	}
	b.LDS = compileSource(msg.GetLdsConfig(), "lds_config")
	b.CDS = compileSource(msg.GetCdsConfig(), "cds_config")
	if ads := msg.GetAdsConfig(); ads != nil {
		var err error
		b.ADS, err = source.CompileAPI(ads, path+".ads_config")
		errs.Wrap(nil, err)
	}
	dynamic := msg.GetLdsConfig() != nil || msg.GetCdsConfig() != nil || msg.GetAdsConfig() != nil
	if dynamic && (b.Node.GetId() == "" || b.Node.GetCluster() == "") {
		errs.Add(config.Field("node"), "node 'id' and 'cluster' are required. Set it either in 'node' config or "+
			"via --service-node and --service-cluster options.")
	}
}

func names[T interface{ GetName() string }](list []T) []string {
	out := make([]string, len(list))
	for i, one := range list {
		out[i] = one.GetName()
	}
	return out
}

// unique reports names that are there twice. Listeners may do without one; of two without, each
// gets a name of its own.
func unique(what string, list []string, path func(int) *config.Path, errs *config.Errors) {
	seen := make(map[string]bool, len(list))
	for i, name := range list {
		if name != "" && seen[name] {
			errs.Addf(path(i).Field("name"), "%s %q is there twice", what, name)
		}
		seen[name] = true
	}
}

func node(from *corev3.Node, in *Input) *corev3.Node {
	n := &corev3.Node{}
	if from != nil {
		proto.Merge(n, from)
	}
	if in.ServiceNode != "" {
		n.Id = in.ServiceNode
	}
	if in.ServiceCluster != "" {
		n.Cluster = in.ServiceCluster
	}
	if in.ServiceZone != "" {
		if n.Locality == nil {
			n.Locality = &corev3.Locality{}
		}
		n.Locality.Zone = in.ServiceZone
	}
	return n
}

func inlineHeaders(list []*bootstrapv3.CustomInlineHeader, errs *config.Errors) {
	for i, h := range list {
		inlineHeaderFields.Check(config.Field("inline_headers").Index(i), h, errs)
	}
}
