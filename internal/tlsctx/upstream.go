package tlsctx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/wire"
)

// Upstream is a compiled UpstreamTlsContext. It implements filter.UpstreamTransport.
type Upstream struct {
	common

	sni                  string
	autoHostSNI, autoSAN bool
	sessions             int
}

// maxServerName is the length of the longest name that SNI can hold.
const maxServerName = 255

// CompileUpstream compiles an UpstreamTlsContext. Nothing is subscribed to until Await.
func CompileUpstream(m *tlsv3.UpstreamTlsContext, t filter.TransportContext, env *Env) (*Upstream, error) {
	var errs config.Errors
	upstreamFields.Check(nil, m, &errs)
	u := &Upstream{
		sni: m.GetSni(), autoHostSNI: m.GetAutoHostSni(), autoSAN: m.GetAutoSniSanValidation(),
		sessions: int(config.Value(m.GetMaxSessionKeys(), 1)),
	}
	u.stats.scope, u.stats.factory = t.Scope, "client_ssl_socket_factory"
	if len(u.sni) > maxServerName || strings.ContainsRune(u.sni, 0) {
		errs.Add(config.Field("sni"), "SNI names containing NULL-byte are not allowed")
	}
	p := config.Field("common_tls_context")
	u.compile(p, m.GetCommonTlsContext(), true, env, &errs)
	if u.autoSAN && u.validation == nil {
		errs.Add(config.Field("auto_sni_san_validation"),
			"'auto_sni_san_validation' was configured without a validation context")
	}
	u.build = u.configure
	u.try(p, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *Upstream) configure(x *derived) error {
	cfg := u.base.Clone()
	cfg.InsecureSkipVerify = true // VerifyConnection checks
	if u.sessions > 0 {
		cfg.ClientSessionCache = &sessions{max: u.sessions}
	}
	if len(x.certs) > 0 {
		// It is shown whatever authorities the server names, as by Envoy.
		own := &x.certs[0].tls
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	x.cfg = cfg
	return nil
}

// maxVariants bounds the configurations kept for different server names and protocols.
const maxVariants = 256

// variant gives the configuration for what one connection asks for.
func (u *Upstream) variant(x *derived, sni string, o *filter.ConnectOptions, logged bool) *tls.Config {
	alpn := u.alpn
	if len(o.ALPN) > 0 {
		alpn = o.ALPN
	} else if len(alpn) == 0 {
		alpn = o.FallbackALPN
	}
	names := u.names(sni, o)
	key := sni + "\x00" + strings.Join(alpn, "\x01") + "\x00" + strings.Join(names, "\x01")
	if logged {
		key += "\x00"
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if cfg := x.variants[key]; cfg != nil {
		return cfg
	}
	cfg := x.cfg.Clone()
	cfg.ServerName, cfg.NextProtos = sni, alpn
	if logged {
		cfg.KeyLogWriter = u.keys
	}
	names = slices.Clone(names)
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		return u.check(x, &cs, x509.ExtKeyUsageServerAuth, names)
	}
	if len(x.variants) >= maxVariants {
		clear(x.variants)
	}
	x.variants[key] = cfg
	return cfg
}

// names are those of which the server's certificate must have one; none if any will do.
func (u *Upstream) names(sni string, o *filter.ConnectOptions) []string {
	if u.autoSAN && sni != "" && len(o.SANs) == 0 {
		return []string{sni}
	}
	return o.SANs
}

// Connect implements filter.UpstreamTransport.
func (u *Upstream) Connect(ctx context.Context, w *wire.Conn, o *filter.ConnectOptions,
) (*stream.TLSInfo, *filter.TransportError) {
	x := u.current()
	if x == nil {
		u.stats.init()
		u.stats.fac.UpstreamNotReady.Inc()
		return nil, &filter.TransportError{Err: errUpstreamSecrets, Transport: errUpstreamSecrets.Error()}
	}
	if o == nil {
		o = &filter.ConnectOptions{}
	}
	sni := u.sni
	if u.autoHostSNI && o.HostName != "" {
		sni = o.HostName
	}
	if o.ServerName != "" {
		sni = o.ServerName
	}
	cfg := u.variant(x, sni, o, u.keys != nil && u.keys.wants(w.Net()))
	cs, err := w.Secure(ctx, func(nc net.Conn) *tls.Conn { return tls.Client(nc, cfg) })
	if err != nil {
		fault := &filter.TransportError{Err: err, Timeout: ctx.Err() != nil}
		if !fault.Timeout {
			fault.Transport = failureText(err)
			fault.Remote = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			u.stats.failed(err, fault.Transport)
		}
		return nil, fault
	}
	u.stats.succeeded(&cs)
	var own *Certificate
	if len(x.certs) > 0 {
		own = x.certs[0]
	}
	return u.session(&cs, x, own, sni, u.names(sni, o)), nil
}
