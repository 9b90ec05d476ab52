// Package tlsinspector is the listener filter envoy.filters.listener.tls_inspector: it tells TLS from
// plaintext by the client's first bytes, and finds server name and application protocols in the
// ClientHello, so that they can choose the filter chain. Nothing is taken out of the socket.
package tlsinspector

import (
	"fmt"
	"net"

	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable table
var fields = config.Fields[*tlsinspectorv3.TlsInspector]{
	Used: `close_connection_on_client_hello_parsing_errors max_client_hello_size
		enable_ja3_fingerprinting enable_ja4_fingerprinting`,
	NoOp: map[string]string{
		"initial_read_buffer_size": "memory to look into is borrowed while there is something to see, " +
			"and grows with what came",
	},
}

// Stats are "tls_inspector.".
type Stats struct {
	TooLarge       stats.Counter   `stat:"client_hello_too_large"`
	TLSFound       stats.Counter   `stat:"tls_found"`
	TLSNotFound    stats.Counter   `stat:"tls_not_found"`
	ALPNFound      stats.Counter   `stat:"alpn_found"`
	ALPNNotFound   stats.Counter   `stat:"alpn_not_found"`
	SNIFound       stats.Counter   `stat:"sni_found"`
	SNINotFound    stats.Counter   `stat:"sni_not_found"`
	BytesProcessed stats.Histogram `stat:"bytes_processed,bytes"`
}

// Filter is the compiled filter.
type Filter struct {
	stats    *Stats
	max      int
	closeBad bool
	ja3, ja4 bool
}

// Compile makes the filter from a TlsInspector.
func Compile(m proto.Message, c filter.ListenerContext) (filter.ListenerFilter, error) {
	x, ok := m.(*tlsinspectorv3.TlsInspector)
	if !ok {
		return nil, fmt.Errorf("configuration is a %T", m)
	}
	var errs config.Errors
	fields.Check(nil, x, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return &Filter{
		stats:    stats.Bind[Stats](c.Scope.Sub("tls_inspector")),
		max:      int(config.Value(x.GetMaxClientHelloSize(), maxMessage)),
		closeBad: x.GetCloseConnectionOnClientHelloParsingErrors(),
		ja3:      x.GetEnableJa3Fingerprinting().GetValue(), ja4: x.GetEnableJa4Fingerprinting().GetValue(),
	}, nil
}

// Entry is the filter for the table of the binary.
func Entry() filter.ListenerEntry {
	return filter.ListenerEntry{
		Name: "envoy.filters.listener.tls_inspector", Config: &tlsinspectorv3.TlsInspector{}, Compile: Compile,
	}
}

// OnAccept implements filter.ListenerFilter.
func (f *Filter) OnAccept(net.Conn, *stream.ConnInfo) (more bool) { return true }

// Inspect implements filter.ListenerFilter.
//
// DIVERGES(tls_inspector): what is no TLS is known by its first byte; Envoy waits for a whole record
// header, so that a client that sends less and waits for an answer stalls until the timeout.
func (f *Filter) Inspect(p []byte, info *stream.ConnInfo) (int, filter.Verdict) {
	p = p[:min(len(p), f.max)]
	h, n, s := parseHello(p)
	switch s {
	case incomplete:
		if len(p) < f.max {
			return 0, filter.More
		}
		f.stats.TooLarge.Inc()
		f.stats.BytesProcessed.Record(uint64(n))
		return 0, filter.Reject
	case notTLS:
		f.stats.TLSNotFound.Inc()
		f.stats.BytesProcessed.Record(uint64(n))
		if f.closeBad {
			return 0, filter.Reject
		}
		return 0, filter.Next
	case complete:
	}
	f.stats.BytesProcessed.Record(uint64(n))
	f.stats.TLSFound.Inc()
	info.TransportProtocol = "tls"
	if info.SNI = h.sni; h.sni != "" {
		f.stats.SNIFound.Inc()
	} else {
		f.stats.SNINotFound.Inc()
	}
	if h.hasALPN {
		f.stats.ALPNFound.Inc()
		info.ALPN = h.alpn
	} else {
		f.stats.ALPNNotFound.Inc()
	}
	if f.ja3 || f.ja4 {
		f.fingerprint(p, info)
	}
	return 0, filter.Next
}

// fingerprint tells clients apart by what their TLS library offers.
func (f *Filter) fingerprint(p []byte, info *stream.ConnInfo) {
	body, _, _ := assemble(p)
	o := readOffer(body)
	if f.ja3 {
		info.JA3 = o.ja3()
	}
	if f.ja4 {
		info.JA4 = o.ja4()
	}
}
