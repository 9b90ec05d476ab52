package tlsctx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/match"
	"sidecar/internal/wire"
)

// Downstream is a compiled DownstreamTlsContext. It implements filter.DownstreamTransport.
type Downstream struct {
	common

	requireCert, requireSNI, fullScan, noTickets bool
	timeout                                      time.Duration
	staples                                      tlsv3.DownstreamTlsContext_OcspStaplePolicy
}

// CompileDownstream compiles a DownstreamTlsContext. Nothing is subscribed to until Await.
func CompileDownstream(m *tlsv3.DownstreamTlsContext, t filter.TransportContext, env *Env) (*Downstream, error) {
	var errs config.Errors
	downstreamFields.Check(nil, m, &errs)
	d := &Downstream{
		requireCert: m.GetRequireClientCertificate().GetValue(), requireSNI: m.GetRequireSni().GetValue(),
		fullScan: m.GetFullScanCertsOnSniMismatch().GetValue(), noTickets: m.GetDisableStatelessSessionResumption(),
		staples: m.GetOcspStaplePolicy(),
	}
	d.stats.scope, d.stats.factory = t.Scope, "server_ssl_socket_factory"
	d.timeout = config.Duration(config.Field("session_timeout"), m.GetSessionTimeout(), 0, &errs)
	p := config.Field("common_tls_context")
	d.compile(p, m.GetCommonTlsContext(), false, env, &errs)
	if len(d.certs) == 0 && errs.Len() == 0 {
		errs.Add(p, "No TLS certificates found for server context")
	}
	switch k := m.GetSessionTicketKeysType().(type) {
	case *tlsv3.DownstreamTlsContext_SessionTicketKeys:
		mat := &Material{}
		mat.Tickets = compileTickets(config.Field("session_ticket_keys"), k.SessionTicketKeys, mat, &errs)
		d.tickets = inline{mat}
	case *tlsv3.DownstreamTlsContext_SessionTicketKeysSdsSecretConfig:
		if got := d.use(nil, config.Field("session_ticket_keys_sds_secret_config"),
			k.SessionTicketKeysSdsSecretConfig, isTickets, &errs); len(got) > 0 {
			d.tickets = got[0]
		}
	}
	d.build = d.configure
	d.try(p, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	d.stats.init() // those of a listener are listed from its start, unlike those of a cluster
	d.stats.expiries(d.now.Load())
	return d, nil
}

// configure makes the configurations of crypto/tls from one version of each secret. They are shared by
// all connections, so that tickets are good for the next one.
func (d *Downstream) configure(x *derived) error {
	for _, c := range x.certs {
		if err := c.checkStaple(d.staples); err != nil {
			return err
		}
	}
	cfg := d.base.Clone()
	cfg.SessionTicketsDisabled = d.noTickets
	switch {
	case d.requireCert || x.validation.demands():
		cfg.ClientAuth = tls.RequireAnyClientCert
	case x.validation.wants():
		cfg.ClientAuth = tls.RequestClientCert
	}
	if v := x.validation; v != nil && !v.suppressCAList {
		cfg.ClientCAs = v.roots
	}
	// In every handshake, also in one that resumes a session: its certificate may not be good any more.
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		return d.check(x, &cs, x509.ExtKeyUsageClientAuth, nil)
	}
	if x.tickets != nil {
		cfg.SetSessionTicketKeys(x.tickets.keys)
	}
	if d.timeout > 0 {
		d.limitSessions(cfg)
	}
	x.byName = index(x.certs)
	cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := d.choose(x, h)
		if s, ok := h.Conn.(*handshake); ok {
			s.own = c
		}
		return d.stapled(c, h, d.env.Secret.now())
	}
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { return d.forClient(x, h) }
	for plain := range x.servers {
		for logged := range x.servers[plain] {
			one := cfg.Clone()
			if plain == 0 {
				one.NextProtos = d.alpn
			}
			if logged == 1 {
				one.KeyLogWriter = d.keys
			}
			x.servers[plain][logged] = one
			if d.keys == nil {
				break
			}
		}
		if len(d.alpn) == 0 {
			break
		}
	}
	return nil
}

// handshake is the connection of one, as crypto/tls sees it, with what came of it.
type handshake struct {
	net.Conn
	own *Certificate // what was shown; nil if a session was resumed
}

// forClient chooses the configuration for what a client says.
func (d *Downstream) forClient(x *derived, h *tls.ClientHelloInfo) (*tls.Config, error) {
	if d.requireSNI && h.ServerName == "" {
		return nil, errNoSNI
	}
	plain, logged := 0, 0
	// Envoy goes on without a protocol where none is in common; crypto/tls would give up.
	if len(d.alpn) > 0 && len(h.SupportedProtos) > 0 && !common1(h.SupportedProtos, d.alpn) {
		plain = 1
	}
	if d.keys != nil && d.keys.wants(h.Conn) {
		logged = 1
	}
	if plain+logged == 0 {
		return nil, nil //nolint:nilnil // keeps the configuration
	}
	return x.servers[plain][logged], nil
}

// DIVERGES(tls-require): Envoy 1.40 does not heed require_sni, nor require_client_certificate without a
// validation context; here both refuse the client.
var errNoSNI = errors.New("tls: no server name, and require_sni is set")

func common1(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
}

// limitSessions has sessions older than session_timeout not resumed.
func (d *Downstream) limitSessions(cfg *tls.Config) {
	cfg.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		s.Extra = append(s.Extra, binary.BigEndian.AppendUint64(nil, uint64(d.env.Secret.now().Unix())))
		return cfg.EncryptTicket(cs, s)
	}
	cfg.UnwrapSession = func(id []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		s, err := cfg.DecryptTicket(id, cs)
		if s == nil || err != nil || len(s.Extra) == 0 || len(s.Extra[0]) != 8 {
			return nil, err
		}
		made := time.Unix(int64(binary.BigEndian.Uint64(s.Extra[0])), 0)
		if d.env.Secret.now().Sub(made) > d.timeout {
			return nil, nil //nolint:nilnil // a full handshake
		}
		return s, nil
	}
}

// index finds certificates by the names that they have, "*.example.com" by ".example.com".
func index(certs []*Certificate) map[string][]*Certificate {
	out := map[string][]*Certificate{}
	for _, c := range certs {
		names := c.Leaf.DNSNames
		if len(names) == 0 && c.Leaf.Subject.CommonName != "" {
			names = []string{c.Leaf.Subject.CommonName}
		}
		for _, n := range names {
			n = strings.TrimPrefix(match.ToLower(n), "*")
			out[n] = append(out[n], c)
		}
	}
	return out
}

// choose finds the certificate for a client: of those for its server name (exact, then by wildcard),
// an ECDSA one if the client takes it, else the first that it takes; the first of all if there is
// none (Envoy: DefaultTlsCertificateSelector).
func (d *Downstream) choose(x *derived, h *tls.ClientHelloInfo) *Certificate {
	if len(x.certs) == 1 {
		return x.certs[0]
	}
	name := match.ToLower(h.ServerName)
	if name != "" {
		if c := best(x.byName[name], h); c != nil {
			return c
		}
		if dot := strings.IndexByte(name, '.'); dot >= 0 {
			if c := best(x.byName[name[dot:]], h); c != nil {
				return c
			}
		}
	}
	if name == "" || d.fullScan {
		if c := best(x.certs, h); c != nil {
			return c
		}
	}
	return x.certs[0]
}

func best(in []*Certificate, h *tls.ClientHelloInfo) *Certificate {
	var rsa *Certificate
	for _, c := range in {
		ecdsa := c.Leaf.PublicKeyAlgorithm == x509.ECDSA
		if !ecdsa && rsa != nil {
			continue
		}
		// The name may be matched in ways that crypto/tls doesn't know, so it is not asked about it.
		nameless := *h
		nameless.ServerName = ""
		if nameless.SupportsCertificate(&c.tls) != nil {
			continue
		}
		if ecdsa {
			return c
		}
		rsa = c
	}
	return rsa
}

// Errors of a context whose secrets have not come.
var (
	errDownstreamSecrets = errors.New("downstream_context_secrets_not_ready")
	errUpstreamSecrets   = errors.New("TLS error: Secret is not supplied by SDS")
)

// Accept implements filter.DownstreamTransport.
func (d *Downstream) Accept(ctx context.Context, w *wire.Conn, info *stream.ConnInfo) error {
	x := d.current()
	if x == nil {
		d.stats.init()
		d.stats.fac.DownstreamNotReady.Inc()
		info.TransportFailure = errUpstreamSecrets.Error()
		return errDownstreamSecrets
	}
	var hs handshake
	cs, err := w.Secure(ctx, func(nc net.Conn) *tls.Conn {
		hs.Conn = nc
		return tls.Server(&hs, x.servers[0][0])
	})
	if err != nil {
		if ctx.Err() == nil {
			info.TransportFailure = failureText(err)
			// DIVERGES(tls-refused-peer): Envoy shows what the certificate says that it has refused, as
			// %DOWNSTREAM_PEER_SUBJECT% and the like.
			d.stats.failed(err, info.TransportFailure)
		}
		return err
	}
	d.stats.succeeded(&cs)
	if hs.own == nil {
		hs.own = x.shown(cs.ServerName)
	}
	info.TLS = d.session(&cs, x, hs.own, cs.ServerName, nil)
	// Not the server name, which is the tls_inspector's to tell, as in Envoy (%REQUESTED_SERVER_NAME%).
	info.ALPN = cs.NegotiatedProtocol
	return nil
}

// shown is the certificate that a client with this server name was shown, as far as that is known.
func (d *derived) shown(name string) *Certificate {
	if len(d.certs) == 1 {
		return d.certs[0]
	}
	name = match.ToLower(name)
	if in := d.byName[name]; len(in) > 0 && name != "" {
		return in[0]
	}
	if dot := strings.IndexByte(name, '.'); dot >= 0 {
		if in := d.byName[name[dot:]]; len(in) > 0 {
			return in[0]
		}
	}
	return d.certs[0]
}
