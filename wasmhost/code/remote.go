// Package code gets plugins' code from where their configuration says that it is: over a cluster, over
// HTTP, out of an image registry; once for all that ask for the same, and not at all if it is in the
// cache.
//
// Limitations: without a directory for the cache nothing is kept beyond the plugins that run it.
package code

import (
	"encoding/hex"
	"net/url"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/internal/config"
	"sidecar/wasmhost/code/cache"
	"sidecar/wasmhost/code/fetch"
)

// Remote is where a plugin's code is. It never changes.
type Remote struct {
	// Cluster is empty if the address is fetched directly.
	Cluster string
	URI     string
	Timeout time.Duration
	// SHA256 is what the code must be, in hex; of an image it may be the manifest's. Empty for anything,
	// which only direct fetches may take.
	SHA256 string
	// Retries is how often a failed fetch is tried again before the plugin has to do without.
	Retries             int
	BaseDelay, MaxDelay time.Duration

	image   fetch.Reference
	isImage bool
	secret  []byte
	always  bool   // the pull policy
	version string // of the resource, for always
}

// Variables of the environment that Istio's control plane gives to plugins for its agent, which takes
// them out. Where there is no agent in between, we do.
const (
	secretVariable  = "ISTIO_META_WASM_IMAGE_PULL_SECRET" //nolint:gosec // the name of one
	policyVariable  = "ISTIO_META_WASM_IMAGE_PULL_POLICY"
	versionVariable = "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION"
	metaPrefix      = "ISTIO_META_"
)

// istioNone is what Istio writes for "no sha256", and for the cluster that it makes up.
const (
	istioNoDigest  = "nil"
	istioNoCluster = "_"
)

var (
	remoteFields = config.Fields[*corev3.RemoteDataSource]{Used: "http_uri sha256 retry_policy"}
	uriFields    = config.Fields[*corev3.HttpUri]{Used: "uri cluster timeout"}
	retryFields  = config.Fields[*corev3.RetryPolicy]{
		Used: "retry_back_off num_retries",
		NoOp: map[string]string{
			"retry_on": "every failure of a fetch is tried again, as in Envoy",
		},
		Refused: "retry_priority retry_host_predicate host_selection_retry_max_attempts",
	}
	backoffFields = config.Fields[*corev3.BackoffStrategy]{Used: "base_interval max_interval"}
)

// FieldTables are the accounts of the messages that Compile reads, for tests.
func FieldTables() []config.Table {
	return []config.Table{remoteFields, uriFields, retryFields, backoffFields}
}

// Compile checks a remote source. environment is the plugin's: what is meant for whoever fetches is
// taken out of it. Paths of errors start at p.
func Compile(p *config.Path, r *corev3.RemoteDataSource, environment map[string]string, errs *config.Errors) *Remote {
	remoteFields.Check(p, r, errs)
	out := &Remote{Retries: 1, BaseDelay: time.Second, MaxDelay: 10 * time.Second}
	u := r.GetHttpUri()
	q := p.Field("http_uri")
	if u == nil {
		errs.Add(q, "is required")
		return out
	}
	uriFields.Check(q, u, errs)
	out.URI, out.Cluster = u.GetUri(), u.GetCluster()
	out.Timeout = config.Duration(q.Field("timeout"), u.GetTimeout(), 0, errs)
	out.address(q, errs)
	out.digest(p.Field("sha256"), r.GetSha256(), errs)
	out.retry(p.Field("retry_policy"), r.GetRetryPolicy(), errs)
	out.istio(q, environment, errs)
	return out
}

func (r *Remote) address(p *config.Path, errs *config.Errors) {
	var err error
	if strings.HasPrefix(r.URI, fetch.Scheme) {
		r.isImage, r.Cluster = true, ""
		if r.image, err = fetch.ParseReference(r.URI); err != nil {
			errs.Wrap(p.Field("uri"), err)
		}
		return
	}
	if r.Cluster == istioNoCluster {
		r.Cluster = ""
	} else if r.Cluster == "" {
		errs.Add(p.Field("cluster"), "is required")
	}
	u, err := url.Parse(r.URI)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		errs.Addf(p.Field("uri"), "%q is no http://, https:// or oci:// address", r.URI)
	}
}

func (r *Remote) digest(p *config.Path, text string, errs *config.Errors) {
	if text == istioNoDigest && r.Cluster == "" {
		return
	}
	if b, err := hex.DecodeString(text); err != nil || len(b) != len(cache.Digest{}) {
		errs.Addf(p, "must be the SHA-256 of the code, 64 hex digits, not %q", text)
	}
	r.SHA256 = strings.ToLower(text)
}

func (r *Remote) retry(p *config.Path, policy *corev3.RetryPolicy, errs *config.Errors) {
	if policy == nil {
		if r.Cluster == "" { // As Istio's agent, which would fetch it otherwise.
			r.Retries, r.BaseDelay = 4, 500*time.Millisecond
		}
		return
	}
	retryFields.Check(p, policy, errs)
	if n := policy.GetNumRetries(); n != nil {
		r.Retries = int(min(n.GetValue(), 1000))
	}
	b := policy.GetRetryBackOff()
	if b == nil {
		return
	}
	p = p.Field("retry_back_off")
	backoffFields.Check(p, b, errs)
	r.BaseDelay = config.Duration(p.Field("base_interval"), b.GetBaseInterval(), r.BaseDelay, errs)
	r.MaxDelay = config.Duration(p.Field("max_interval"), b.GetMaxInterval(), 10*r.BaseDelay, errs)
	if r.BaseDelay < time.Millisecond || r.MaxDelay < r.BaseDelay {
		errs.Add(p, "base_interval must be at least 1ms, and max_interval at least base_interval")
	}
}

// istio takes the hints for whoever fetches out of the environment.
func (r *Remote) istio(p *config.Path, environment map[string]string, errs *config.Errors) {
	secret, hasSecret := environment[secretVariable]
	policy := environment[policyVariable]
	r.version = environment[versionVariable]
	for name := range environment {
		if strings.HasPrefix(name, metaPrefix) {
			delete(environment, name)
		}
	}
	if r.Cluster != "" {
		return
	}
	if hasSecret {
		r.secret = []byte(secret)
		if _, err := fetch.ParseSecret(r.secret, r.image.Host); err != nil {
			errs.Wrap(p, err)
		}
	}
	switch policy {
	case "", "UNSPECIFIED_POLICY":
		r.always = r.isImage && r.image.Tag == "latest"
	case "IfNotPresent":
	case "Always":
		r.always = true
	default:
		errs.Addf(p, "%s is %q, neither IfNotPresent nor Always", policyVariable, policy)
	}
}

// key is what plugins share a fetch by. Who may pull an image is up to the secret, so a plugin doesn't
// get what another one's secret has fetched.
func (r *Remote) key() string {
	parts := []string{r.Cluster, r.URI, r.SHA256, string(r.secret)}
	if r.always {
		parts = append(parts, r.version)
	}
	return strings.Join(parts, "\x00")
}

// Digest is that of the code, if the configuration says it: an image's may be that of the manifest.
func (r *Remote) Digest() (cache.Digest, bool) {
	if r.isImage || r.SHA256 == "" {
		return cache.Digest{}, false
	}
	return parseDigest(r.SHA256)
}

// String names the source in logs: an address, without what may be a password in it.
func (r *Remote) String() string {
	if u, err := url.Parse(r.URI); err == nil {
		return u.Redacted()
	}
	return r.URI
}
