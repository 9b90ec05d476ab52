package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/internal/config"
)

// DefaultInitialFetchTimeout is how long a first fetch is waited for unless the config says more.
const DefaultInitialFetchTimeout = 15 * time.Second

// Kind tells where a config source fetches from.
type Kind uint8

// The kinds of config sources.
const (
	KindUnset Kind = iota
	// KindADS is the aggregated stream that the bootstrap names.
	KindADS
	// KindFile is a file, read again when it is replaced.
	KindFile
	// KindGRPC is a stream for one type.
	KindGRPC
)

// ConfigSource is a compiled envoy.config.core.v3.ConfigSource. It never changes.
type ConfigSource struct {
	Kind Kind
	// Path of the file and the directory to watch (KindFile).
	Path, WatchedDirectory string
	// GRPC says which server to stream from (KindGRPC).
	GRPC *GRPC
	// InitialFetchTimeout is 0 when the first fetch is waited for without end.
	InitialFetchTimeout time.Duration
	// Key is equal for sources that may share a stream or a file watch.
	Key string
}

// GRPC is a compiled envoy.config.core.v3.ApiConfigSource that streams.
type GRPC struct {
	Delta bool
	// Cluster to connect to, or TargetURI when google_grpc is used.
	Cluster, TargetURI string
	Authority          string
	// SetNodeOnFirstMessageOnly leaves the node out of all but the first request of a stream.
	SetNodeOnFirstMessageOnly bool
	// Metadata is sent with each stream: pairs of key and value.
	Metadata [][2]string
	// MaxReceiveMessageBytes is 0 when the config gives no limit.
	MaxReceiveMessageBytes uint32
	// BackOffBase and BackOffMax bound the wait before a stream is opened again; 0 means Envoy's
	// default (500 ms and 30 s).
	BackOffBase, BackOffMax time.Duration
	// RateLimit bounds the requests sent; nil when they are not bounded.
	RateLimit *RateLimit
}

// RateLimit is a token bucket for discovery requests.
type RateLimit struct {
	MaxTokens uint32
	FillRate  float64 // tokens a second
}

// ADS is the source of an ads: {} with the default timeout.
func ADS() *ConfigSource {
	return &ConfigSource{Kind: KindADS, InitialFetchTimeout: DefaultInitialFetchTimeout, Key: "ads"}
}

// Compile checks a config source and compiles it. path is the proto field path of cs, used in
// errors. It looks at the file system, as Envoy does: a path must exist.
func Compile(cs *corev3.ConfigSource, path string) (*ConfigSource, error) {
	if cs == nil {
		return nil, problem(path, "required")
	}
	out := &ConfigSource{}
	var errs []error
	switch s := cs.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Ads:
		out.Kind, out.Key = KindADS, "ads"
	case *corev3.ConfigSource_Path:
		errs = append(errs, compileFile(out, s.Path, "", path+".path")) //nolint:staticcheck // deprecated, still in use
	case *corev3.ConfigSource_PathConfigSource:
		errs = append(errs, compileFile(out, s.PathConfigSource.GetPath(),
			s.PathConfigSource.GetWatchedDirectory().GetPath(), path+".path_config_source"))
	case *corev3.ConfigSource_ApiConfigSource:
		var err error
		if out.GRPC, err = CompileAPI(s.ApiConfigSource, path+".api_config_source"); err != nil {
			errs = append(errs, err)
		}
		out.Kind, out.Key = KindGRPC, "grpc:"+digestKey(s.ApiConfigSource)
	default:
		// Envoy refuses self here too: nothing but LRS can inherit its parent's source.
		errs = append(errs, problem(path, "Missing config source specifier in envoy::config::core::v3::ConfigSource"))
	}
	var err error
	out.InitialFetchTimeout, err = duration(cs.GetInitialFetchTimeout(),
		DefaultInitialFetchTimeout, path+".initial_fetch_timeout")
	errs = append(errs, err, checkVersion(cs.GetResourceApiVersion(), path+".resource_api_version"))
	var unread config.Errors
	checkFields(cs, config.Field(path), &unread)
	errs = append(errs, unread.Err())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func compileFile(out *ConfigSource, file, watched, path string) error {
	out.Kind, out.Path = KindFile, file
	if _, err := os.Stat(file); err != nil {
		return problem(path, "paths must refer to an existing path in the system: '%s' does not exist", file)
	}
	// Without watched_directory the file's own directory is what is watched: a file that is
	// replaced has another inode, which a watch of the file itself would not see.
	out.WatchedDirectory = filepath.Dir(file)
	if watched != "" {
		out.WatchedDirectory = filepath.Clean(watched)
		if st, err := os.Stat(watched); err != nil || !st.IsDir() {
			return problem(path+".watched_directory", "unable to watch %s: not a directory", watched)
		}
	}
	out.Key = "file:" + file + "\x00" + out.WatchedDirectory
	return nil
}

// CompileAPI compiles the config of a stream: a per-type source, or the bootstrap's ads_config.
func CompileAPI(api *corev3.ApiConfigSource, path string) (*GRPC, error) {
	out := &GRPC{SetNodeOnFirstMessageOnly: api.GetSetNodeOnFirstMessageOnly()}
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, problem(path+field, format, args...))
	}
	switch t := api.GetApiType(); t {
	case corev3.ApiConfigSource_GRPC:
	case corev3.ApiConfigSource_DELTA_GRPC:
		out.Delta = true
	default:
		bad(".api_type", "Unsupported config source %s", t)
	}
	errs = append(errs, checkVersion(api.GetTransportApiVersion(), path+".transport_api_version"))
	var unread config.Errors
	checkAPIFields(api, config.Field(path), &unread)
	errs = append(errs, unread.Err())
	switch n := len(api.GetGrpcServices()); n {
	case 1:
		errs = append(errs, out.compileService(api.GetGrpcServices()[0], path+".grpc_services[0]"))
	case 2:
		bad(".grpc_services[1]", "failover to a second management server is not supported")
	default:
		bad(".grpc_services", "must have exactly one entry, has %d", n)
	}
	if rl := api.GetRateLimitSettings(); rl != nil {
		// Envoy: 100 tokens, 10 a second (RateLimitSettings).
		out.RateLimit = &RateLimit{MaxTokens: 100, FillRate: 10}
		if v := rl.GetMaxTokens(); v != nil {
			out.RateLimit.MaxTokens = v.GetValue()
		}
		if v := rl.GetFillRate(); v != nil {
			if out.RateLimit.FillRate = v.GetValue(); !(v.GetValue() > 0) {
				bad(".rate_limit_settings.fill_rate", "must be greater than 0")
			}
		}
	}
	// refresh_delay and request_timeout are for REST; Envoy ignores them on a stream too.
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func (g *GRPC) compileService(s *corev3.GrpcService, path string) error {
	var errs []error
	switch t := s.GetTargetSpecifier().(type) {
	case *corev3.GrpcService_EnvoyGrpc_:
		errs = append(errs, g.compileEnvoyGRPC(t.EnvoyGrpc, path+".envoy_grpc"))
	case *corev3.GrpcService_GoogleGrpc_:
		errs = append(errs, g.compileGoogleGRPC(t.GoogleGrpc, path+".google_grpc"))
	default:
		errs = append(errs, problem(path+".target_specifier", "required"))
	}
	errs = append(errs, g.compileRetry(s.GetRetryPolicy(), path+".retry_policy"))
	for _, h := range s.GetInitialMetadata() {
		g.Metadata = append(g.Metadata, [2]string{h.GetKey(), h.GetValue()})
	}
	return errors.Join(errs...)
}

func (g *GRPC) compileEnvoyGRPC(e *corev3.GrpcService_EnvoyGrpc, path string) error {
	var errs []error
	g.Cluster, g.Authority = e.GetClusterName(), e.GetAuthority()
	if g.Cluster == "" {
		errs = append(errs, problem(path+".cluster_name", "value length must be at least 1"))
	}
	if g.Authority == "" {
		g.Authority = g.Cluster // Envoy: "Defaults to cluster_name".
	}
	g.MaxReceiveMessageBytes = e.GetMaxReceiveMessageLength().GetValue()
	errs = append(errs, g.compileRetry(e.GetRetryPolicy(), path+".retry_policy"))
	return errors.Join(errs...)
}

// compileRetry takes the back-off of a retry policy, the only part that Envoy reads for a stream.
func (g *GRPC) compileRetry(r *corev3.RetryPolicy, path string) error {
	b := r.GetRetryBackOff()
	if b == nil {
		return nil
	}
	var err1, err2 error
	path += ".retry_back_off"
	g.BackOffBase, err1 = duration(b.GetBaseInterval(), 0, path+".base_interval")
	g.BackOffMax, err2 = duration(b.GetMaxInterval(), 10*g.BackOffBase, path+".max_interval")
	if g.BackOffMax < g.BackOffBase {
		err2 = problem(path+".max_interval", "must be greater than or equal to the base_interval")
	}
	return errors.Join(err1, err2)
}

func (g *GRPC) compileGoogleGRPC(gg *corev3.GrpcService_GoogleGrpc, path string) error {
	var errs []error
	bad := func(field, msg string) { errs = append(errs, problem(path+field, "%s", msg)) }
	if g.TargetURI = gg.GetTargetUri(); g.TargetURI == "" {
		bad(".target_uri", "value length must be at least 1")
	}
	if gg.GetStatPrefix() == "" {
		bad(".stat_prefix", "value length must be at least 1")
	}
	return errors.Join(errs...)
}

// problem is an error at a field, which whoever prints it can find the line of.
func problem(path, format string, args ...any) error {
	return &config.Error{Path: path, Err: fmt.Errorf(format, args...)}
}

func duration(d *durationpb.Duration, def time.Duration, path string) (time.Duration, error) {
	if d == nil {
		return def, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, problem(path, "%w", err)
	}
	if d.AsDuration() < 0 {
		return 0, problem(path, "must not be negative")
	}
	return d.AsDuration(), nil
}

func checkVersion(v corev3.ApiVersion, path string) error {
	if v == corev3.ApiVersion_V2 { //nolint:staticcheck // refused
		return problem(path, "V2 xDS is not supported, use V3")
	}
	return nil
}

// digestKey needs no canonical form: two configs that differ only in map order just don't share.
func digestKey(m proto.Message) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return string(sum[:])
}
