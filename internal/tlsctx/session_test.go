package tlsctx

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/stats"
)

// scoped is for contexts whose stats are of no interest.
func scoped() filter.TransportContext {
	s := stats.New().Root().Sub("l")
	return filter.TransportContext{Scope: func() *stats.Scope { return s }}
}

func ticketData(b byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: bytes.Repeat([]byte{b}, ticketKeyBytes)}}
}

// TestTickets holds that servers with a key in common take each other's tickets.
func TestTickets(t *testing.T) {
	t.Parallel()
	cert := newAuthority(t).issue(t, "server.test", time.Hour)
	for _, c := range []struct {
		name        string
		first, then []byte // what the keys are filled with
		off, resume bool
	}{
		{"the same key", []byte{1}, []byte{1}, false, true},
		{"rotated", []byte{1}, []byte{2, 1}, false, true},
		{"not the first any more", []byte{1}, []byte{3, 2}, false, false},
		{"keys of their own", nil, nil, false, false},
		{"without tickets", []byte{1}, []byte{1}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			down := func(keys []byte) *tlsv3.DownstreamTlsContext {
				d := &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
					TlsCertificates: []*tlsv3.TlsCertificate{cert}, AlpnProtocols: []string{"h2"},
				}}
				if c.off {
					d.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
						DisableStatelessSessionResumption: true,
					}
					return d
				}
				if keys == nil {
					return d
				}
				all := &tlsv3.TlsSessionTicketKeys{}
				for _, k := range keys {
					all.Keys = append(all.Keys, ticketData(k))
				}
				d.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_SessionTicketKeys{SessionTicketKeys: all}
				return d
			}
			up := &tlsv3.UpstreamTlsContext{Sni: "server.test", CommonTlsContext: &tlsv3.CommonTlsContext{}}
			a, b := newRig(t, down(c.first), up), newRig(t, down(c.then), up)
			b.up = a.up
			for i, r := range []*rig{a, b} {
				if _, _, fault, err := r.shake(t, nil); err != nil || fault != nil {
					t.Fatal(i, err, fault)
				}
			}
			if got := b.down.stats.ssl.SessionReused.Value() == 1; got != c.resume {
				t.Errorf("resumed: %t, want %t", got, c.resume)
			}
		})
	}
}

// TestSessionTimeout holds that a session is taken up as long as session_timeout says.
func TestSessionTimeout(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	env := &Env{Secret: &SecretEnv{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}}
	d, err := CompileDownstream(&tlsv3.DownstreamTlsContext{
		SessionTimeout: durationpb.New(10 * time.Minute),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates: []*tlsv3.TlsCertificate{newAuthority(t).issue(t, "server.test", time.Hour)},
		},
	}, scoped(), env)
	if err != nil {
		t.Fatal(err)
	}
	u, err := CompileUpstream(&tlsv3.UpstreamTlsContext{Sni: "server.test", CommonTlsContext: &tlsv3.CommonTlsContext{}},
		scoped(), env)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{down: d, up: u}
	for _, c := range []struct {
		after  time.Duration
		reused uint64
	}{{0, 0}, {5 * time.Minute, 1}, {20 * time.Minute, 1}, {21 * time.Minute, 2}} {
		ahead.Store(int64(c.after))
		if _, _, fault, err := r.shake(t, nil); err != nil || fault != nil {
			t.Fatal(err, fault)
		}
		if n := d.stats.ssl.SessionReused.Value(); n != c.reused {
			t.Errorf("after %v: %d sessions taken up, want %d", c.after, n, c.reused)
		}
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	s := &sessions{max: 3}
	one, two, three, four := &tls.ClientSessionState{}, &tls.ClientSessionState{}, &tls.ClientSessionState{}, &tls.ClientSessionState{}
	want := func(step, name string, cs *tls.ClientSessionState) {
		t.Helper()
		if got, ok := s.Get(name); got != cs || ok != (cs != nil) {
			t.Errorf("%s: got another session of %q", step, name)
		}
	}
	s.Put("a", one)
	s.Put("b", two)
	s.Put("a", three)
	want("newest", "a", three)
	s.Put("a", nil)
	want("used", "a", one)
	s.Put("a", three)
	s.Put("c", four) // one is the oldest
	want("all there", "a", three)
	s.Put("a", nil)
	want("pushed out", "a", nil)
	want("still there", "b", two)
	s.Put("a", nil)
	if s.all.Len() != 2 || len(s.named) != 2 {
		t.Errorf("%d sessions of %d names", s.all.Len(), len(s.named))
	}
}

// TestKeyLog holds that the secrets of the sessions that the ranges name are written, and no others.
func TestKeyLog(t *testing.T) {
	t.Parallel()
	cert := newAuthority(t).issue(t, "server.test", time.Hour)
	loopback := []*corev3.CidrRange{{AddressPrefix: "127.0.0.0", PrefixLen: wrapperspb.UInt32(8)}}
	elsewhere := []*corev3.CidrRange{{AddressPrefix: "::1", PrefixLen: wrapperspb.UInt32(400)}}
	for _, c := range []struct {
		name          string
		local, remote []*corev3.CidrRange
		logged        bool
	}{
		{"all", nil, nil, true},
		{"in both", loopback, loopback, true},
		{"not there", elsewhere, nil, false},
		{"not from there", loopback, elsewhere, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			files := []string{filepath.Join(t.TempDir(), "down"), filepath.Join(t.TempDir(), "up")}
			keys := func(file string) *tlsv3.TlsKeyLog {
				return &tlsv3.TlsKeyLog{Path: file, LocalAddressRange: c.local, RemoteAddressRange: c.remote}
			}
			r := newRig(t, &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsCertificates: []*tlsv3.TlsCertificate{cert}, KeyLog: keys(files[0]), AlpnProtocols: []string{"x"},
			}}, &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
				KeyLog: keys(files[1]), AlpnProtocols: []string{"y"},
			}})
			if _, _, fault, err := r.shake(t, nil); err != nil || fault != nil {
				t.Fatal(err, fault)
			}
			r.down.Retire()
			r.up.Retire()
			for _, f := range files {
				p, err := os.ReadFile(f)
				if got := err == nil && strings.HasPrefix(string(p), "CLIENT_RANDOM "); got != c.logged {
					t.Errorf("%s: logged: %t, want %t", filepath.Base(f), got, c.logged)
				}
			}
		})
	}
	if (&keyLog{local: compileRanges(nil, loopback, nil)}).wants(unixConn{}) {
		t.Error("a unix socket is in a range of addresses")
	}
}

type unixConn struct{ net.Conn }

func (unixConn) LocalAddr() net.Addr  { return &net.UnixAddr{} }
func (unixConn) RemoteAddr() net.Addr { return &net.UnixAddr{} }
