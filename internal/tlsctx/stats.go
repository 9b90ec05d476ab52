package tlsctx

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync"

	"sidecar/api/stats"
)

// sslStats are "ssl.".
type sslStats struct {
	ConnectionError     stats.Counter `stat:"connection_error"`
	Handshake           stats.Counter `stat:"handshake"`
	SessionReused       stats.Counter `stat:"session_reused"`
	NoCertificate       stats.Counter `stat:"no_certificate"`
	FailVerifyNoCert    stats.Counter `stat:"fail_verify_no_cert"`
	FailVerifyError     stats.Counter `stat:"fail_verify_error"`
	FailVerifySAN       stats.Counter `stat:"fail_verify_san"`
	FailVerifyCertHash  stats.Counter `stat:"fail_verify_cert_hash"`
	OCSPStapleFailed    stats.Counter `stat:"ocsp_staple_failed"`
	OCSPStapleOmitted   stats.Counter `stat:"ocsp_staple_omitted"`
	OCSPStapleRequests  stats.Counter `stat:"ocsp_staple_requests"`
	OCSPStapleResponses stats.Counter `stat:"ocsp_staple_responses"`
}

// factoryStats are "server_ssl_socket_factory." and "client_ssl_socket_factory.".
type factoryStats struct {
	Updates            stats.Counter `stat:"ssl_context_update_by_sds"`
	UpstreamNotReady   stats.Counter `stat:"upstream_context_secrets_not_ready"`
	DownstreamNotReady stats.Counter `stat:"downstream_context_secrets_not_ready"`
}

// counters are the stats of a context, made when something is counted for the first time.
type counters struct {
	scope   func() *stats.Scope
	factory string

	once sync.Once
	ssl  *sslStats
	fac  *factoryStats
	root *stats.Scope

	mu    sync.RWMutex // guards below
	named map[string]*stats.Counter
}

func (c *counters) init() {
	c.once.Do(func() {
		s := c.scope()
		c.root = s.Sub("ssl")
		c.ssl = stats.Bind[sslStats](c.root)
		c.fac = stats.Bind[factoryStats](s.Sub(c.factory))
		c.named = map[string]*stats.Counter{}
	})
}

// expiries sets ssl.certificate.NAME.expiration_unix_time_seconds of what is in use, of a cluster once it
// is used.
func (c *counters) expiries(d *derived) {
	if c.root == nil || d == nil {
		return
	}
	set := func(name string, cert *x509.Certificate) {
		c.root.Sub("certificate." + name).Gauge("expiration_unix_time_seconds").Set(cert.NotAfter.Unix())
	}
	if v := d.validation; v != nil && len(v.CAs) > 0 {
		set(v.name, v.CAs[0])
	}
	for _, one := range d.certs {
		set(one.name, one.Leaf)
	}
}

func (c *counters) count(prefix, name string) {
	key := prefix + name
	c.mu.RLock()
	n := c.named[key]
	c.mu.RUnlock()
	if n == nil {
		// The names are those of crypto/tls, so there is an end to them.
		n = c.root.Counter(key)
		c.mu.Lock()
		c.named[key] = n
		c.mu.Unlock()
	}
	n.Inc()
}

// succeeded counts a handshake.
//
// DIVERGES(tls-sigalgs): crypto/tls doesn't tell what the peer signed with, so ssl.sigalgs is not counted.
func (c *counters) succeeded(cs *tls.ConnectionState) {
	c.init()
	c.ssl.Handshake.Inc()
	if cs.DidResume {
		c.ssl.SessionReused.Inc()
	}
	if len(cs.PeerCertificates) == 0 {
		c.ssl.NoCertificate.Inc()
	}
	c.count("ciphers.", cipherName(cs.CipherSuite))
	c.count("versions.", versionName(cs.Version))
	if g := nameOf(groups(), uint16(cs.CurveID)); g != "" {
		c.count("curves.", g)
	}
}

// failed counts a handshake that failed, as Envoy's drainErrorQueue does.
func (c *counters) failed(err error, text string) {
	c.init()
	var bad *verifyError
	switch {
	case errors.As(err, &bad):
		c.refused(bad.kind)
	case strings.Contains(text, "PEER_DID_NOT_RETURN_A_CERTIFICATE"):
		c.ssl.FailVerifyNoCert.Inc()
	case text != "":
		c.ssl.ConnectionError.Inc()
	}
}

// refused counts a certificate that was found bad.
func (c *counters) refused(kind failure) {
	switch kind {
	case failSAN:
		c.ssl.FailVerifySAN.Inc()
	case failHash:
		c.ssl.FailVerifyCertHash.Inc()
	case failChain:
		c.ssl.FailVerifyError.Inc()
	}
}
