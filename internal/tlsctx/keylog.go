package tlsctx

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/internal/config"
)

// keyLog writes the secrets of sessions for debuggers (key_log). The file is opened with the first
// session, so that compiling opens nothing.
type keyLog struct {
	// Set by compile, never changed.
	path          string
	local, remote []netip.Prefix // whose sessions are logged; empty: all

	mu     sync.Mutex // guards below
	f      *os.File
	closed bool
}

func compileKeyLog(p *config.Path, m *tlsv3.TlsKeyLog, errs *config.Errors) *keyLog {
	if m == nil {
		return nil
	}
	keyLogFields.Check(p, m, errs)
	if m.GetPath() == "" {
		errs.Add(p.Field("path"), "is required")
	}
	return &keyLog{
		path:   m.GetPath(),
		local:  compileRanges(p.Field("local_address_range"), m.GetLocalAddressRange(), errs),
		remote: compileRanges(p.Field("remote_address_range"), m.GetRemoteAddressRange(), errs),
	}
}

func compileRanges(p *config.Path, list []*corev3.CidrRange, errs *config.Errors) []netip.Prefix {
	var out []netip.Prefix
	for i, r := range list {
		out = append(out, config.Prefix(p.Index(i), r, errs))
	}
	return out
}

// wants tells whether a connection's sessions are logged. Those without IP addresses are in no range.
func (k *keyLog) wants(c net.Conn) bool {
	return inRange(k.local, c.LocalAddr()) && inRange(k.remote, c.RemoteAddr())
}

func inRange(list []netip.Prefix, a net.Addr) bool {
	if len(list) == 0 {
		return true
	}
	t, ok := a.(*net.TCPAddr)
	return ok && slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(t.AddrPort().Addr().Unmap()) })
}

// keyLogMode keeps what decrypts sessions from others.
const keyLogMode = 0o600

// Write implements io.Writer. An error fails the handshake.
func (k *keyLog) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return len(p), nil // a session of a configuration that is being retired
	}
	if k.f == nil {
		f, err := os.OpenFile(k.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, keyLogMode)
		if err != nil {
			return 0, errors.New("key log cannot be opened")
		}
		k.f = f
	}
	return k.f.Write(p)
}

func (k *keyLog) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.f != nil {
		_ = k.f.Close()
		k.f = nil
	}
}
