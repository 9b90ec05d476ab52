package play

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"sidecar/internal/compat/corpus"
)

// MakeCertificates writes NAME.pem and NAME.key for every name below into dir: keys are made for each
// run. All but self-signed ones are of the authority in ca.pem; other.pem is of another.
func (s *Stage) MakeCertificates(dir string) error {
	s.folder = dir
	now := time.Now()
	ca, err := issue(dir, "ca", nil, now.Add(-time.Hour), now.Add(time.Hour))
	if err != nil {
		return err
	}
	strange, err := issue(dir, "strange-ca", nil, now.Add(-time.Hour), now.Add(time.Hour))
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range []struct {
		name          string
		by            *authority
		before, after time.Time
	}{
		{"server", ca, now.Add(-time.Hour), now.Add(time.Hour)},
		{"client", ca, now.Add(-time.Hour), now.Add(time.Hour)},
		{"wrong-name", ca, now.Add(-time.Hour), now.Add(time.Hour)},
		{"expired", ca, now.Add(-2 * time.Hour), now.Add(-time.Hour)},
		{"not-yet", ca, now.Add(time.Hour), now.Add(2 * time.Hour)},
		{"strange", strange, now.Add(-time.Hour), now.Add(time.Hour)},
	} {
		_, err := issue(dir, c.name, c.by, c.before, c.after)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func issue(dir, name string, by *authority, before, after time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(before.Unix()), NotBefore: before, NotAfter: after,
		Subject:     pkix.Name{CommonName: name, Organization: []string{"compat"}},
		DNSNames:    []string{name + ".test"},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "compat.test", Path: "/" + name}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, key
	if by == nil {
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage, template.URIs, template.DNSNames = x509.KeyUsageCertSign, nil, nil
	} else {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	for suffix, block := range map[string]*pem.Block{
		".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	certificate, err := x509.ParseCertificate(der)
	return &authority{certificate, key}, err
}

// clientTLS makes the config of a case's clients. They take any server: what is compared is how the
// proxy judges them.
func (s *Stage) clientTLS(t *corpus.TLS) (*tls.Config, error) {
	if t == nil || t.Off {
		return nil, nil //nolint:nilnil // plaintext
	}
	c := &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // see above
		ServerName:         t.SNI, NextProtos: t.ALPN,
	}
	if err := limitVersion(c, t.Max); err != nil {
		return nil, err
	}
	if t.Certificate != "" {
		pair, err := s.pair(t.Certificate)
		if err != nil {
			return nil, err
		}
		// Whatever authorities the server names.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return c, nil
}

// serverTLS makes the config of a case's upstream, which takes any client.
func (s *Stage) serverTLS(t *corpus.TLS) (*tls.Config, error) {
	if t == nil || t.Off {
		return nil, nil //nolint:nilnil // plaintext
	}
	name := t.Certificate
	if name == "" {
		name = "server"
	}
	pair, err := s.pair(name)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{*pair}, NextProtos: t.ALPN, MinVersion: tls.VersionTLS10,
		SessionTicketsDisabled: true,
	}
	if t.AskClient {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	return c, limitVersion(c, t.Max)
}

func (s *Stage) pair(name string) (*tls.Certificate, error) {
	base := filepath.Join(s.folder, name)
	pair, err := tls.LoadX509KeyPair(base+".pem", base+".key")
	return &pair, err
}

func limitVersion(c *tls.Config, most string) error {
	switch most {
	case "", "1.3":
	case "1.2":
		c.MaxVersion = tls.VersionTLS12
	case "1.1":
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	default:
		return fmt.Errorf("tls max %q", most)
	}
	return nil
}

// describeTLS is what an upstream sees of a handshake.
func describeTLS(s tls.ConnectionState) string {
	text := fmt.Sprintf("%s sni %q alpn %q", tls.VersionName(s.Version), s.ServerName, s.NegotiatedProtocol)
	if len(s.PeerCertificates) > 0 {
		text += " client " + s.PeerCertificates[0].Subject.CommonName
	}
	return text
}

// handshakeFailure keeps the alert that came and drops what only the client's library says.
func handshakeFailure(err error) string {
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		return alert.Error()
	}
	if errors.Is(err, io.EOF) {
		return "closed"
	}
	return failure(err)
}
