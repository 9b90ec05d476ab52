package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/log"
	"sidecar/internal/tlsctx"
	"sidecar/xds"
	"sidecar/xds/xdstest"
)

// pair is a certificate and its key, in PEM.
type pair struct{ cert, key []byte }

func newPair(t testing.TB, name string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}),
	}
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func certificate(name string, p pair) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(p.cert), PrivateKey: inline(p.key),
	}}}
}

// secretsRig is a server's secrets without the rest of it.
type secretsRig struct {
	t    testing.TB
	srv  *xdstest.Server
	s    *Server
	logs *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newSecretsRig(t testing.TB) *secretsRig {
	t.Helper()
	// As an agent does it: behind a unix socket.
	srv, err := xdstest.Start(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	r := &secretsRig{t: t, srv: srv, logs: &lockedBuffer{}}
	store := stats.New()
	logs := log.New(r.logs)
	r.s = &Server{opts: &Options{Logs: logs}, store: store, scope: store.Root()}
	r.s.secrets = &secrets{s: r.s, env: &tlsctx.SecretEnv{}}
	ads := &source.GRPC{Cluster: "xds"}
	r.s.xds = xds.New(xds.Config{
		Node: &corev3.Node{Id: "n", Cluster: "c"}, ADS: ads, Dialer: r.srv, Stats: store.Root(),
		Log: logs.Component("config"),
	})
	r.s.xds.Start()
	t.Cleanup(func() {
		r.s.xds.Close()
		r.s.secrets.close()
	})
	return r
}

func (r *secretsRig) use(name string, cs *corev3.ConfigSource) tlsctx.Secret {
	r.t.Helper()
	u, err := r.s.secrets.Secret(name, cs)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(u.Retire)
	return u
}

// awaited is a use that has its first material.
func (r *secretsRig) awaited(name string, cs *corev3.ConfigSource) tlsctx.Secret {
	r.t.Helper()
	u := r.use(name, cs)
	ctx, cancel := context.WithTimeout(r.t.Context(), secretPatience)
	defer cancel()
	u.Await(ctx)
	if u.Load() == nil {
		r.t.Fatalf("secret %s has not come\n%s", name, r.logs)
	}
	return u
}

const secretPatience = 20 * time.Second

func (r *secretsRig) wait(what string, cond func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(secretPatience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatalf("waited in vain for %s\n%s", what, r.logs)
		}
	}
}

func (r *secretsRig) nacked(part string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), secretPatience)
	defer cancel()
	e, err := r.srv.WaitNACK(ctx, source.SecretType, part)
	if err != nil {
		r.t.Fatalf("no NACK: %v\n%s", err, r.logs)
	}
	return e.Error
}

func (r *secretsRig) acked(version string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), secretPatience)
	defer cancel()
	if err := r.srv.WaitACK(ctx, source.SecretType, version); err != nil {
		r.t.Fatalf("no ACK: %v\n%s", err, r.logs)
	}
}

func (r *secretsRig) dump() *adminv3.SecretsConfigDump {
	d, _ := r.s.dumpSecrets().(*adminv3.SecretsConfigDump)
	return d
}

// clean fails if a key is in any of the texts.
func (r *secretsRig) clean(keys [][]byte, texts ...string) {
	r.t.Helper()
	for _, k := range keys {
		block, _ := pem.Decode(k)
		for _, text := range append(texts, r.logs.String()) {
			line := strings.Split(string(k), "\n")[1]
			if strings.Contains(text, line) || strings.Contains(text, string(block.Bytes)) {
				r.t.Errorf("a private key is shown in %q", text)
			}
		}
	}
}

func sources(t testing.TB) map[string]*corev3.ConfigSource {
	t.Helper()
	api := func(kind corev3.ApiConfigSource_ApiType) *corev3.ConfigSource {
		return &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
				ApiType: kind, TransportApiVersion: corev3.ApiVersion_V3,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "sds"},
				}}},
			}},
		}
	}
	return map[string]*corev3.ConfigSource{
		"ads": {
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
		},
		"sotw":  api(corev3.ApiConfigSource_GRPC),
		"delta": api(corev3.ApiConfigSource_DELTA_GRPC),
	}
}

// context has a TLS context use the secret.
func (r *secretsRig) context(name string, cs *corev3.ConfigSource) {
	r.t.Helper()
	c, err := tlsctx.CompileDownstream(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: name, SdsConfig: cs}},
	}}, filter.TransportContext{Scope: func() *stats.Scope { return r.s.scope.Sub("listener.x") }}, r.s.tlsEnv())
	if err != nil {
		r.t.Fatal(err)
	}
	c.Await(r.t.Context())
	r.t.Cleanup(c.Retire)
}

// TestSecrets_Life walks through what a server does with a secret, over every protocol.
func TestSecrets_Life(t *testing.T) {
	t.Parallel()
	for name, cs := range sources(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newSecretsRig(t)
			one, two := newPair(t, "one"), newPair(t, "two")
			r.srv.Set(certificate("a", one))
			u, other := r.awaited("a", cs), r.awaited("a", cs)
			r.context("a", cs)
			first := u.Load()
			if other.Load() != first || len(r.s.secrets.list()) != 1 {
				t.Error("two uses of a secret do not share it")
			}

			// Another version that means the same: it is accepted, and nothing is swapped.
			r.srv.Set(certificate("a", one))
			r.srv.Set(certificate("a", pair{one.cert, two.key}))
			text := r.nacked("a: ")
			if u.Load() != first {
				t.Error("a bad secret, or one that means the same, was swapped in")
			}

			v := r.srv.Set(certificate("a", two))
			r.acked(v)
			r.wait("the second version", func() bool { return u.Load() != first })
			second := u.Load()

			r.srv.Remove(source.SecretType, "a")
			r.srv.Stop()
			if err := r.srv.Resume(); err != nil {
				t.Fatal(err)
			}
			r.srv.Set(certificate("a", one))
			r.wait("the version after the server was away", func() bool {
				if u.Load() == nil {
					t.Fatal("the secret is gone")
				}
				return u.Load() != second
			})
			d := r.dump()
			if len(d.GetDynamicActiveSecrets()) != 1 {
				t.Fatalf("dump: %v", prototext.Format(d))
			}
			var shown tlsv3.Secret
			if err := d.GetDynamicActiveSecrets()[0].GetSecret().UnmarshalTo(&shown); err != nil {
				t.Fatal(err)
			}
			if got := string(shown.GetTlsCertificate().GetPrivateKey().GetInlineBytes()); got != "[redacted]" {
				t.Errorf("private key in the dump: %q", got)
			}
			if !bytes.Equal(shown.GetTlsCertificate().GetCertificateChain().GetInlineBytes(), one.cert) {
				t.Error("the dump does not show the certificate")
			}
			r.clean([][]byte{one.key, two.key}, text, prototext.Format(&shown))
			certs := r.s.certificates()
			if len(certs) != 1 || len(certs[0].GetCertChain()) != 1 {
				t.Fatalf("certs: %v", certs)
			}
			c := certs[0].GetCertChain()[0]
			if c.GetPath() != "<inline>" || c.GetDaysUntilExpiration() != 1 || c.GetSubjectAltNames()[0].GetDns() != "one" {
				t.Errorf("certs: %v", c)
			}
			if n := r.s.daysToExpiry(); n != 1 {
				t.Errorf("days to the first expiry: %d", n)
			}
			if n := r.s.scope.Sub("sds.a").Counter("update_rejected").Value(); n != 1 {
				t.Errorf("update_rejected: %d", n)
			}
		})
	}
}

// TestSecrets_Never holds that a secret that never comes is waited for as long as its source says, and
// is shown as warming.
func TestSecrets_Never(t *testing.T) {
	t.Parallel()
	r := newSecretsRig(t)
	cs := sources(t)["ads"]
	cs.InitialFetchTimeout = durationpb.New(20 * time.Millisecond)
	u := r.use("never", cs)
	u.Await(t.Context())
	if u.Load() != nil {
		t.Error("there is a secret")
	}
	d := r.dump()
	if len(d.GetDynamicWarmingSecrets()) != 1 || d.GetDynamicWarmingSecrets()[0].GetVersionInfo() != "uninitialized" {
		t.Errorf("dump: %s", prototext.Format(d))
	}
	if n := r.s.scope.Sub("sds.never").Counter("init_fetch_timeout").Value(); n != 1 {
		t.Errorf("init_fetch_timeout: %d", n)
	}
	// It may still come.
	r.srv.Set(certificate("never", newPair(t, "late")))
	r.wait("the late secret", func() bool { return u.Load() != nil })
	u.Retire()
	r.wait("the end of the subscription", func() bool { return len(r.s.secrets.list()) == 0 })
}

// TestSecrets_File has a secret in a file that names files, which are replaced as Kubernetes does:
// by moving a symlink.
func TestSecrets_File(t *testing.T) {
	t.Parallel()
	r := newSecretsRig(t)
	dir := t.TempDir()
	one, two := newPair(t, "one"), newPair(t, "two")
	put := func(version string, p pair) {
		t.Helper()
		at := filepath.Join(dir, version)
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"cert.pem": p.cert, "key.pem": p.key} {
			if err := os.WriteFile(filepath.Join(at, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		tmp := filepath.Join(dir, "tmp")
		if err := os.Symlink(version, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	put("v1", one)
	conf := filepath.Join(t.TempDir(), "sds.yaml")
	text := fmt.Sprintf(`version_info: "1"
resources:
- "@type": %s
  name: f
  tls_certificate:
    certificate_chain: {filename: %[2]s/..data/cert.pem}
    private_key: {filename: %[2]s/..data/key.pem}
    watched_directory: {path: %[2]s}
`, source.SecretType, dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	u := r.awaited("f", &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{
		PathConfigSource: &corev3.PathConfigSource{Path: conf},
	}})
	first := u.Load()
	put("v2", two)
	r.wait("the files to be read again", func() bool { return u.Load() != first })
	second := u.Load()
	put("v3", pair{one.cert, two.key})
	r.wait("the bad files to be found", func() bool {
		return r.s.scope.Sub("sds.f").Counter("key_rotation_failed").Value() > 0
	})
	if u.Load() != second {
		t.Error("a pair that does not match was swapped in")
	}
	put("v4", one)
	r.wait("good files", func() bool { return u.Load() != second })
	r.clean([][]byte{one.key, two.key}, prototext.Format(r.dump()))
}

func TestSecrets_Static(t *testing.T) {
	t.Parallel()
	r := newSecretsRig(t)
	p := newPair(t, "static")
	var errs config.Errors
	r.s.secrets.compileStatic([]*tlsv3.Secret{certificate("a", p), certificate("a", p), {
		Name: "g", Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{Secret: inline([]byte("hush"))}},
	}}, &errs)
	if err := errs.Err(); err == nil || err.Error() != "static_resources.secrets[1].name: Duplicate static secret, name: a" {
		t.Errorf("error: %v", err)
	}
	u, err := r.s.secrets.Secret("a", nil)
	if err != nil || u.Load() == nil {
		t.Fatalf("%v, %v", u, err)
	}
	u.Await(t.Context())
	u.Retire()
	if _, err := r.s.secrets.Secret("b", nil); err == nil || err.Error() != "Unknown static secret: b" {
		t.Errorf("error: %v", err)
	}
	d := r.dump()
	if len(d.GetStaticSecrets()) != 2 {
		t.Fatalf("dump: %s", prototext.Format(d))
	}
	var g tlsv3.Secret
	if err := d.GetStaticSecrets()[1].GetSecret().UnmarshalTo(&g); err != nil {
		t.Fatal(err)
	}
	if got := string(g.GetGenericSecret().GetSecret().GetInlineBytes()); got != "[redacted]" {
		t.Errorf("generic secret in the dump: %q", got)
	}
}
