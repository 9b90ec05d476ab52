package tlsctx

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/config"
)

// slot is a secret that a test sets. It implements Secret.
type slot struct{ m atomic.Pointer[Material] }

func (s *slot) Load() *Material     { return s.m.Load() }
func (*slot) Await(context.Context) {}
func (*slot) Retire()               {}

func (s *slot) set(t testing.TB, secret *tlsv3.Secret) {
	t.Helper()
	var errs config.Errors
	m := CompileSecret(nil, secret, &SecretEnv{}, &errs)
	if err := errs.Err(); err != nil {
		t.Fatal(err)
	}
	s.m.Store(m)
}

type slots map[string]*slot

func (s slots) Secret(name string, _ *corev3.ConfigSource) (Secret, error) {
	if x := s[name]; x != nil {
		return x, nil
	}
	return nil, errors.New("unknown secret")
}

func TestRotation(t *testing.T) {
	t.Parallel()
	oldCA, newCA := newAuthority(t), newAuthority(t)
	secrets := slots{"cert": {}, "ca": {}}
	store := stats.New()
	scope := store.Root().Sub("l")
	down, err := CompileDownstream(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "cert"}},
			ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
				CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
					DefaultValidationContext: &tlsv3.CertificateValidationContext{
						MatchTypedSubjectAltNames: trust(oldCA, "client.test").ValidationContext.GetMatchTypedSubjectAltNames(),
					},
					ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: "ca"},
				},
			},
		},
	}, filter.TransportContext{Scope: func() *stats.Scope { return scope }}, &Env{Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	client := func(ca *authority, name string) *Upstream {
		return newRig(t, &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates: []*tlsv3.TlsCertificate{ca.issue(t, "x.test", time.Hour)},
		}}, &tlsv3.UpstreamTlsContext{Sni: "server.test", CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates: []*tlsv3.TlsCertificate{ca.issue(t, name, time.Hour)},
		}}).up
	}
	r := &rig{down: down, up: client(oldCA, "client.test"), store: store}
	if _, _, _, err := r.shake(t, nil); err == nil || down.stats.fac.DownstreamNotReady.Value() != 1 {
		t.Fatal("a connection without secrets:", err)
	}
	rotate := func(ca *authority) {
		secrets["cert"].set(t, &tlsv3.Secret{Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: ca.issue(t, "server.test", time.Hour)}})
		secrets["ca"].set(t, &tlsv3.Secret{Type: &tlsv3.Secret_ValidationContext{ValidationContext: trust(ca, "").ValidationContext}})
	}
	rotate(oldCA)
	if _, _, fault, err := r.shake(t, nil); err != nil || fault != nil {
		t.Fatal(err, fault)
	}
	rotate(newCA)
	// The client has a session of the time before, which must not help it.
	if info, _, _, err := r.shake(t, nil); err == nil || !strings.Contains(info.TransportFailure, "CERTIFICATE_VERIFY_FAILED") {
		t.Errorf("a certificate of the former authority: %v", err)
	}
	r.up = client(newCA, "client.test")
	if _, _, fault, err := r.shake(t, nil); err != nil || fault != nil {
		t.Error(err, fault)
	}
	r.up = client(newCA, "foe.test")
	if info, _, _, _ := r.shake(t, nil); !strings.Contains(info.TransportFailure, "SAN matcher") {
		t.Errorf("the defaults don't count: %q", info.TransportFailure)
	}
	if n := down.stats.fac.Updates.Value(); n != 2 {
		t.Errorf("ssl_context_update_by_sds = %d", n)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	log := filepath.Join(t.TempDir(), "keys")
	for _, c := range []struct {
		name, sni, want string
		full            bool
	}{
		{"exact", "b.test", "b.test", false},
		{"wildcard", "x.c.test", "*.c.test", false},
		{"exact before wildcard", "y.c.test", "y.c.test", false},
		{"unknown", "z.test", "a.test", false},
		{"unknown, full scan", "z.test", "a.test", true},
		{"none", "", "a.test", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var certs []*tlsv3.TlsCertificate
			for _, n := range []string{"a.test", "b.test", "*.c.test", "y.c.test"} {
				certs = append(certs, ca.issue(t, n, time.Hour))
			}
			r := newRig(t, &tlsv3.DownstreamTlsContext{
				FullScanCertsOnSniMismatch: wrapperspb.Bool(c.full),
				CommonTlsContext:           &tlsv3.CommonTlsContext{TlsCertificates: certs, KeyLog: &tlsv3.TlsKeyLog{Path: log}},
			}, &tlsv3.UpstreamTlsContext{Sni: c.sni, CommonTlsContext: &tlsv3.CommonTlsContext{}})
			defer r.down.Retire()
			info, up, fault, err := r.shake(t, nil)
			if err != nil || fault != nil {
				t.Fatal(err, fault)
			}
			if got := up.Peer.DNSSAN[0]; got != c.want || info.TLS.Own.DNSSAN[0] != c.want {
				t.Errorf("shown %s, logged as %v, want %s", got, info.TLS.Own.DNSSAN, c.want)
			}
			if data, err := os.ReadFile(log); err != nil || !strings.Contains(string(data), "CLIENT_RANDOM") {
				t.Errorf("key log: %q, %v", data, err)
			}
		})
	}
}
