package tlsctx

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
)

// Env is what compiling a context may use.
type Env struct {
	Secrets Provider
	Secret  *SecretEnv
	// Live, if not nil, lists the contexts in use.
	Live *Inventory
}

// inline is a secret that is part of the context. It implements Secret.
type inline struct{ m *Material }

func (s inline) Load() *Material     { return s.m }
func (inline) Await(context.Context) {}
func (inline) Retire()               {}

// common is what the contexts of both sides have in common.
type common struct {
	// Set by compile, never changed.
	base       *tls.Config
	certs      []Secret
	validation Secret // nil if peers are not checked
	defaults   *Validation
	tickets    Secret // of a server; nil if the keys are our own
	alpn       []string
	keys       *keyLog // nil if sessions are not logged
	stats      counters
	build      func(*derived) error
	peers      certCache
	sds        bool // some secret comes from a management server
	env        *Env

	now     atomic.Pointer[derived]
	mu      sync.Mutex // serializes who derives anew, and guards below
	refused *derived   // what the latest secrets would have made, if that is not usable
}

// derived is what was made of one version of each secret. It never changes.
type derived struct {
	from       []*Material
	certs      []*Certificate
	validation *Validation
	tickets    *TicketKeys
	cfg        *tls.Config // of a client; those of connections are made from it
	servers    [2][2]*tls.Config
	byName     map[string][]*Certificate

	mu       sync.Mutex // guards below
	variants map[string]*tls.Config
	// verified are the chains that were found good, until when: in a mesh the same ones come again and
	// again, and a verification costs about as much as the rest of the handshake.
	verified map[[sha256.Size]byte]verified
}

// verified is a chain that was found good.
type verified struct {
	until  time.Time
	issuer *x509.Certificate // nil if nobody had to vouch for it
}

func (c *common) compile(p *config.Path, m *tlsv3.CommonTlsContext, client bool, env *Env, errs *config.Errors) {
	commonFields.Check(p, m, errs)
	c.env = env
	c.base = &tls.Config{DynamicRecordSizingDisabled: true} //nolint:gosec // params sets the versions
	params(p.Field("tls_params"), m.GetTlsParams(), c.base, client, errs)
	c.keys = compileKeyLog(p.Field("key_log"), m.GetKeyLog(), errs)
	c.alpn = compileALPN(p.Field("alpn_protocols"), m.GetAlpnProtocols(), errs)
	for i, one := range m.GetTlsCertificates() {
		at := p.Field("tls_certificates").Index(i)
		mat := &Material{}
		if mat.Certificate = compileCertificate(at, one, env.Secret, mat, errs); mat.Certificate != nil {
			c.certs = append(c.certs, inline{mat})
		}
	}
	if len(m.GetTlsCertificates()) == 0 {
		for i, s := range m.GetTlsCertificateSdsSecretConfigs() {
			c.certs = c.use(c.certs, p.Field("tls_certificate_sds_secret_configs").Index(i), s, isCertificate, errs)
		}
	} else if len(m.GetTlsCertificateSdsSecretConfigs()) > 0 {
		errs.Add(p, "SDS and non-SDS TLS certificates may not be mixed")
	}
	if client && len(m.GetTlsCertificates())+len(m.GetTlsCertificateSdsSecretConfigs()) > 1 {
		errs.Add(p, "Multiple TLS certificates are not supported for client contexts")
	}
	c.compileValidation(p, m, errs)
}

func (c *common) compileValidation(p *config.Path, m *tlsv3.CommonTlsContext, errs *config.Errors) {
	direct := func(at *config.Path, v *tlsv3.CertificateValidationContext) *Material {
		mat := &Material{}
		mat.Validation = compileValidation(at, v, mat, errs)
		return mat
	}
	one := func(at *config.Path, s *tlsv3.SdsSecretConfig) {
		if got := c.use(nil, at, s, isValidation, errs); len(got) > 0 {
			c.validation = got[0]
		}
	}
	switch v := m.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		c.validation = inline{direct(p.Field("validation_context"), v.ValidationContext)}
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		one(p.Field("validation_context_sds_secret_config"), v.ValidationContextSdsSecretConfig)
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		at := p.Field("combined_validation_context")
		combinedFields.Check(at, v.CombinedValidationContext, errs)
		c.defaults = direct(at.Field("default_validation_context"),
			v.CombinedValidationContext.GetDefaultValidationContext()).Validation
		one(at.Field("validation_context_sds_secret_config"),
			v.CombinedValidationContext.GetValidationContextSdsSecretConfig())
	}
}

// use asks for a named secret.
func (c *common) use(in []Secret, p *config.Path, s *tlsv3.SdsSecretConfig, is func(*Material) bool,
	errs *config.Errors,
) []Secret {
	sdsFields.Check(p, s, errs)
	if c.env.Secrets == nil {
		errs.Add(p, "there are no secrets here")
		return in
	}
	got, err := c.env.Secrets.Secret(s.GetName(), s.GetSdsConfig())
	if err != nil {
		errs.Wrap(p, err)
		return in
	}
	switch m := got.Load(); {
	case m == nil:
		c.sds = true
	case !is(m):
		errs.Addf(p, "Unknown static secret: %s", s.GetName()) // each kind has its own names, as in Envoy
	}
	return append(in, got)
}

func isCertificate(m *Material) bool { return m.Certificate != nil }
func isValidation(m *Material) bool  { return m.Validation != nil }
func isTickets(m *Material) bool     { return m.Tickets != nil }

// try reports what is wrong with the secrets taken together, as far as they are there already.
func (c *common) try(p *config.Path, errs *config.Errors) {
	if errs.Len() > 0 {
		return
	}
	d, err := c.derive()
	if err != nil {
		errs.Wrap(p, err)
		return
	}
	if d != nil {
		c.now.Store(d)
	}
}

func (c *common) secrets() []Secret {
	out := slices.Clone(c.certs)
	if c.validation != nil {
		out = append(out, c.validation)
	}
	if c.tickets != nil {
		out = append(out, c.tickets)
	}
	return out
}

// Await implements filter.Awaiter.
func (c *common) Await(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range c.secrets() {
		if _, here := s.(inline); !here {
			wg.Go(func() { s.Await(ctx) })
		}
	}
	wg.Wait()
	if c.env.Live != nil {
		c.env.Live.add(c)
	}
}

// Retire implements filter.Retirer.
func (c *common) Retire() {
	if c.env.Live != nil {
		c.env.Live.remove(c)
	}
	for _, s := range c.secrets() {
		s.Retire()
	}
	if c.keys != nil {
		c.keys.close()
	}
}

// Ready implements filter.UpstreamTransport: every secret has come.
func (c *common) Ready() bool { return c.current() != nil }

// same tells whether d was made of what the secrets are now.
func (c *common) same(d *derived) bool {
	i := 0
	is := func(s Secret) bool {
		ok := s.Load() == d.from[i]
		i++
		return ok
	}
	for _, s := range c.certs {
		if !is(s) {
			return false
		}
	}
	return (c.validation == nil || is(c.validation)) && (c.tickets == nil || is(c.tickets))
}

// current returns what the secrets make now; nil while one has not come. Secrets that don't go together
// leave what there was before, as in Envoy, which refuses the one that came last.
func (c *common) current() *derived {
	if d := c.now.Load(); d != nil && c.same(d) {
		return d
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.now.Load()
	if old != nil && c.same(old) || c.refused != nil && c.same(c.refused) {
		return old
	}
	d, err := c.derive()
	switch {
	case err != nil:
		c.refused = d
		if e := c.env.Secret; e != nil && e.Log != nil {
			e.Log.Warn("tls: secrets that don't go together", "error", err)
		}
		return old
	case d == nil:
		return nil
	}
	c.now.Store(d)
	c.stats.expiries(d)
	if c.sds {
		c.stats.init()
		c.stats.fac.Updates.Inc()
	}
	return d
}

// derive makes what the secrets mean together, nil while one has not come. With an error it returns
// what is not usable.
func (c *common) derive() (*derived, error) {
	d := &derived{variants: map[string]*tls.Config{}}
	for i, s := range c.secrets() {
		m := s.Load()
		if m == nil {
			return nil, nil //nolint:nilnil // said above
		}
		d.from = append(d.from, m)
		switch {
		case i < len(c.certs) && m.Certificate != nil:
			d.certs = append(d.certs, m.Certificate)
		case m.Validation != nil:
			d.validation = m.Validation
			if c.defaults != nil {
				d.validation = merge(c.defaults, m.Validation)
			}
		case m.Tickets != nil:
			d.tickets = m.Tickets
		default: // a secret of another kind: as if it had not come
			return nil, nil //nolint:nilnil // said above
		}
	}
	if err := d.validation.whole(); err != nil {
		return d, err
	}
	return d, c.build(d)
}

// check verifies what a peer has shown. With ACCEPT_UNTRUSTED what is wrong is only counted.
func (c *common) check(d *derived, cs *tls.ConnectionState, use x509.ExtKeyUsage, names []string) error {
	err := d.check(cs, use, names)
	var bad *verifyError
	if d.validation != nil && d.validation.acceptUntrusted && errors.As(err, &bad) {
		c.stats.init()
		c.stats.refused(bad.kind)
		return nil
	}
	return err
}

// check verifies what a peer has shown.
func (d *derived) check(cs *tls.ConnectionState, use x509.ExtKeyUsage, names []string) error {
	v := d.validation
	if v == nil && len(names) > 0 {
		v = &Validation{maxDepth: -1}
	}
	if len(cs.PeerCertificates) > 0 && !cs.DidResume && !usable(cs, use) {
		return errKeyUsage
	}
	if v == nil || len(cs.PeerCertificates) == 0 {
		return nil
	}
	now, key := time.Now(), verifiedKey(cs.PeerCertificates, names)
	d.mu.Lock()
	good, known := d.verified[key]
	d.mu.Unlock()
	if known && now.Before(good.until) {
		return nil
	}
	good, err := v.verify(cs.PeerCertificates, use, names, now)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.verified == nil || len(d.verified) >= maxPeers {
		d.verified = map[[sha256.Size]byte]verified{}
	}
	d.verified[key] = good
	return nil
}

// verifiedKey stands for a chain and the names that are asked of it.
func verifiedKey(chain []*x509.Certificate, names []string) [sha256.Size]byte {
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw)
	}
	for _, n := range names {
		h.Write([]byte("\x00" + n))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// issuer is what a chain was verified with in this handshake.
func (d *derived) issuer(cs *tls.ConnectionState, names []string) *x509.Certificate {
	if cs.DidResume || d.validation == nil || d.validation.roots == nil {
		return nil
	}
	key := verifiedKey(cs.PeerCertificates, names)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.verified[key].issuer
}

// session tells of a handshake.
func (c *common) session(cs *tls.ConnectionState, d *derived, own *Certificate, sni string, names []string,
) *stream.TLSInfo {
	info := &stream.TLSInfo{
		Version: versionName(cs.Version), Cipher: cipherName(cs.CipherSuite),
		Group: nameOf(groups(), uint16(cs.CurveID)), SNI: sni, ALPN: cs.NegotiatedProtocol,
		PeerPresented: len(cs.PeerCertificates) > 0,
	}
	if own != nil {
		info.Own = own.info
	}
	if info.PeerPresented {
		peer := c.peers.get(cs.PeerCertificates)
		info.Peer, info.PeerChainPEM = peer.info, peer.chain
		info.PeerChainSHA256, info.PeerChainSHA1, info.PeerChainSerials = peer.sha256, peer.sha1, peer.serials
		if issuer := d.issuer(cs, names); issuer != nil {
			sum := sha256.Sum256(issuer.Raw)
			info.IssuerSHA256, info.IssuerSerial = hex.EncodeToString(sum[:]), serial(issuer)
		}
		info.PeerValidated = d.validation.wants() && !d.validation.acceptUntrusted
		info.Mutual = own != nil
	}
	return info
}

// maxPeers bounds the peers whose certificates are kept in the form of logs.
const maxPeers = 1024

// certCache keeps what logs show of peers' certificates: in a mesh the same ones come again and again.
type certCache struct {
	mu sync.Mutex // guards below
	m  map[[sha256.Size]byte]*peerCert
}

type peerCert struct {
	info                  stream.CertInfo
	chain                 string
	sha256, sha1, serials string
}

func (c *certCache) get(chain []*x509.Certificate) *peerCert {
	h := sha256.New()
	for _, one := range chain {
		h.Write(one.Raw)
	}
	key := [sha256.Size]byte(h.Sum(nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.m[key]; p != nil {
		return p
	}
	p := &peerCert{info: certInfo(chain[0])}
	for i, one := range chain {
		x := p.info
		if i > 0 {
			x = certInfo(one)
			p.sha256, p.sha1, p.serials = p.sha256+",", p.sha1+",", p.serials+","
		}
		p.chain, p.sha256 = p.chain+x.PEM, p.sha256+x.SHA256
		p.sha1, p.serials = p.sha1+x.SHA1, p.serials+x.Serial
	}
	if c.m == nil || len(c.m) >= maxPeers {
		c.m = map[[sha256.Size]byte]*peerCert{}
	}
	c.m[key] = p
	return p
}
