package listener

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// testTLS is a transport with a certificate of its own. Its configuration is a BytesValue, its name.
type testTLS struct {
	cfg     *tls.Config
	gate    chan struct{} // Await waits for it, if not nil
	retired chan string
	name    string
}

func (x *testTLS) Accept(ctx context.Context, w *wire.Conn, info *stream.ConnInfo) error {
	state, err := w.Secure(ctx, func(nc net.Conn) *tls.Conn { return tls.Server(nc, x.cfg) })
	if err != nil {
		info.TransportFailure = err.Error()
		return err
	}
	info.TLS = &stream.TLSInfo{SNI: state.ServerName, ALPN: state.NegotiatedProtocol}
	return nil
}

func (x *testTLS) Await(ctx context.Context) {
	if x.gate == nil {
		return
	}
	select {
	case <-x.gate:
	case <-ctx.Done():
	}
}

func (x *testTLS) Retire() { x.retired <- x.name }

// tlsRig is a rig whose listeners may have the transport; gate is for those compiled from then on.
type tlsRig struct {
	*rig
	cert    tls.Certificate
	gate    chan struct{}
	retired chan string
	seen    filter.TransportContext
}

func newTLSRig(t testing.TB, p DrainPolicy) *tlsRig {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &tlsRig{
		rig: newRig(t, p), retired: make(chan string, 10),
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}
	r.env.Transports = map[string]*filter.TransportEntry{
		"google.protobuf.BytesValue": {Name: "tls", Config: &wrapperspb.BytesValue{}, Compile: r.compile},
		"google.protobuf.BoolValue": {
			Name: "upstream", Config: &wrapperspb.BoolValue{},
			Compile: func(proto.Message, filter.TransportContext) (any, error) { return 1, nil },
		},
	}
	return r
}

func (r *tlsRig) compile(m proto.Message, c filter.TransportContext) (any, error) {
	name := string(m.(*wrapperspb.BytesValue).GetValue())
	if name == "bad" {
		return nil, errors.New("bad transport")
	}
	r.seen = c
	return &testTLS{
		name: name, retired: r.retired, gate: r.gate,
		cfg: &tls.Config{Certificates: []tls.Certificate{r.cert}, NextProtos: []string{"h2", "http/1.1"}},
	}, nil
}

// withTLS gives all chains the transport; text is base64 of its name.
func withTLS(chains, text string) string {
	return strings.ReplaceAll(chains, `"filters":`, `"transport_socket_connect_timeout":"60s","transport_socket":{"name":"tls",
		"typed_config":{"@type":"type.googleapis.com/google.protobuf.BytesValue","value":"`+text+`"}},"filters":`)
}

const one, two = "b25l", "dHdv" // "one" and "two"

func dialTLS(t testing.TB, nc net.Conn) *tls.Conn {
	t.Helper()
	c := tls.Client(nc, &tls.Config{
		InsecureSkipVerify: true, ServerName: "a.test", NextProtos: []string{"h2"}, //nolint:gosec // a test
	})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTransport(t *testing.T) {
	t.Parallel()
	r := newTLSRig(t, DrainPolicy{})
	r.apply("l", loopback, `"stat_prefix":"s"`, `"access_log":[{}]`, withTLS(chains(`a {"server_names":[]}`), one))
	c := dialTLS(t, r.dial("l"))
	if got := hello(t, c); got != "a" || !alive(c) {
		t.Fatalf("chain %q", got)
	}
	info := r.lastInfo()
	if info.TLS == nil || info.TLS.SNI != "a.test" || info.ALPN != "h2" || info.TransportFailure != "" {
		t.Errorf("connection %+v", info)
	}
	if r.seen.Path != "filter_chains[0].transport_socket.typed_config" || r.seen.Scope() == nil {
		t.Errorf("context %+v", r.seen)
	}
	_ = c.Close()
	if l := r.line(); l.BytesReceived != 1 || l.BytesSent != 3 {
		t.Errorf("received %d, sent %d: not the plaintext's", l.BytesReceived, l.BytesSent)
	}
}

// TestTransport_Fails: plaintext, an end, silence and the end of the chain during a handshake.
func TestTransport_Fails(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		timeout string
		act     func(r *tlsRig, c net.Conn)
		failure string
		timeOut int64 // counted
	}{
		"plaintext": {
			"60s", func(_ *tlsRig, c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") },
			"tls: first record does not look like a TLS handshake", 0,
		},
		"end":     {"0s", func(_ *tlsRig, c net.Conn) { _ = c.Close() }, "EOF", 0},
		"silence": {"0.05s", func(*tlsRig, net.Conn) {}, "", 1},
		"chain's end": {"0s", func(r *tlsRig, _ net.Conn) {
			r.waitStat("listener.s.downstream_cx_active", 1)
			r.apply("l", loopback, `"stat_prefix":"s"`, `"access_log":[{}]`, withTLS(chains("b"), two))
		}, "use of closed network connection", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTLSRig(t, DrainPolicy{Time: 10 * time.Millisecond})
			r.apply("l", loopback, `"stat_prefix":"s"`, `"access_log":[{}]`,
				strings.Replace(withTLS(chains("a"), one), "60s", x.timeout, 1))
			c := r.dial("l")
			x.act(r, c)
			l := r.line()
			if !strings.Contains(l.Conn.TransportFailure, x.failure) || (x.timeOut > 0) != (l.Conn.TransportFailure == "") {
				t.Errorf("failure %q, want %q", l.Conn.TransportFailure, x.failure)
			}
			if (l.Conn.TerminationDetail == timeoutDetails) != (x.timeOut > 0) {
				t.Errorf("details %q", l.Conn.TerminationDetail)
			}
			if got := r.stat("listener.s.downstream_cx_transport_socket_connect_timeout"); got != x.timeOut {
				t.Errorf("%d timeouts", got)
			}
			r.waitStat("listener.s.downstream_cx_active", 0)
			if len(r.infos) != 0 {
				t.Error("the connection was served")
			}
		})
	}
}

func TestTransport_TLSToPlaintextPort(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	r.apply("l", loopback, chains("a"))
	c := tls.Client(r.dial("l"), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
	if err := c.Handshake(); !errors.As(err, new(tls.RecordHeaderError)) {
		t.Errorf("handshake with an echo = %v", err)
	}
}

// TestTransport_Lifecycle: a transport is waited for as a filter is, swapped with its chain, and
// retired once.
func TestTransport_Lifecycle(t *testing.T) {
	t.Parallel()
	r := newTLSRig(t, DrainPolicy{Time: time.Hour, Immediate: true})
	r.gate = make(chan struct{})
	err, ready := r.try("l", loopback, withTLS(chains("a"), one))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-ready:
		t.Fatal("in force though its transport is not ready")
	default:
	}
	close(r.gate)
	<-ready
	kept := dialTLS(t, r.dial("l"))
	hello(t, kept)
	r.apply("l", loopback, withTLS(chains("a"), one), `"metadata":{}`) // a version that starts afresh
	r.apply("l", loopback, withTLS(chains("a"), two), `"metadata":{}`)
	if r.stat("listener_manager.listener_in_place_updated") < 1 {
		t.Error("a new transport is not an update in place")
	}
	if !alive(kept) {
		t.Error("a connection was cut off by the update of its chain's transport")
	}
	_ = kept.Close()
	r.wait("retired transports", func() bool { return len(r.retired) >= 1 })
	if got := <-r.retired; got != "one" {
		t.Errorf("%q was retired", got)
	}
	c := dialTLS(t, r.dial("l"))
	if hello(t, c) != "a" {
		t.Error("not served by the new version")
	}
}

func TestTransport_Refused(t *testing.T) {
	t.Parallel()
	r := newTLSRig(t, DrainPolicy{})
	for name, x := range map[string]struct{ text, want string }{
		"error":   {withTLS(chains("a"), "YmFk"), "bad transport"},
		"unknown": {strings.Replace(withTLS(chains("a"), one), "BytesValue", "StringValue", 1), "is not supported"},
		"upstream": {strings.Replace(strings.Replace(withTLS(chains("a"), one), "BytesValue", "BoolValue", 1),
			`"`+one+`"`, "true", 1), "is not one for listeners"},
	} {
		err, _ := r.try("l", loopback, x.text)
		if err == nil || !strings.Contains(err.Error(), x.want) ||
			!strings.Contains(err.Error(), "filter_chains[0].transport_socket.typed_config") {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
	if !slices.Equal(r.rig.retired(), []string{"a", "a", "a"}) {
		t.Errorf("what was compiled beside was not retired: %v", r.rig.retired())
	}
}
