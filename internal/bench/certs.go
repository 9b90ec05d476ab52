package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const benchHost = "bench.test"

// identity is a certificate with its key, in files.
type identity struct{ chain, key, serial string }

// identities are made for each run: no key is ever stored with the project.
type identities struct {
	ca             string // file
	server, client identity

	dir    string
	issuer *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newIdentities(dir string) (*identities, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := validCertificate(1, "bench CA")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	ids := &identities{ca: filepath.Join(dir, "ca.pem"), dir: dir, key: key, serial: 1}
	if ids.issuer, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if err := writePEM(ids.ca, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	if ids.server, err = ids.issue(benchHost); err != nil {
		return nil, err
	}
	ids.client, err = ids.issue("client." + benchHost)
	return ids, err
}

func validCertificate(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

// issue makes a certificate with a new key.
func (ids *identities) issue(host string) (identity, error) {
	ids.serial++
	template := validCertificate(ids.serial, host)
	template.DNSNames = []string{host}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ids.issuer, &key.PublicKey, ids.key)
	if err != nil {
		return identity{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identity{}, err
	}
	serial := template.SerialNumber.String()
	id := identity{
		chain:  filepath.Join(ids.dir, "cert-"+serial+".pem"),
		key:    filepath.Join(ids.dir, "key-"+serial+".pem"),
		serial: serial,
	}
	if err := writePEM(id.chain, "CERTIFICATE", der); err != nil {
		return id, err
	}
	return id, writePEM(id.key, "PRIVATE KEY", private)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// clientConfig is what the loads of the bench itself speak: TLS 1.3 with one group, so that every
// server does the same work.
func (ids *identities) clientConfig(protocol string, withCertificate bool) (*tls.Config, error) {
	roots := x509.NewCertPool()
	roots.AddCert(ids.issuer)
	c := &tls.Config{
		RootCAs: roots, ServerName: benchHost, NextProtos: []string{protocol},
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
	}
	if withCertificate {
		pair, err := tls.LoadX509KeyPair(ids.client.chain, ids.client.key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
