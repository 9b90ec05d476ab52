package pool

import (
	"context"
	"errors"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/cluster/dial"
	"sidecar/internal/wire"
)

// The application protocols of HTTP (ALPN).
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

// open makes a socket ready for a codec or a TCP proxy, with its transport if it has one; ctx ends
// the attempt, and so does the connect timeout, which bounds both parts of it. alpn is offered where the
// configuration of the transport offers nothing.
func (p *Pool) open(ctx context.Context, alpn []string) (*opened, *dial.Error) {
	start := time.Now()
	conn, session, err := p.connect(ctx, alpn, start)
	if err != nil {
		return nil, err
	}
	f, err := p.filter(conn, session, start)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &opened{conn, session, f}, nil
}

// opened is a socket that is ready.
type opened struct {
	*wire.Conn
	session  *stream.TLSInfo // nil: plaintext
	filtered *filtered       // nil: no filters
}

// discard closes a socket that nobody uses.
func (o *opened) discard() {
	o.Close()
	o.filtered.end()
}

func (p *Pool) connect(ctx context.Context, alpn []string, start time.Time,
) (*wire.Conn, *stream.TLSInfo, *dial.Error) {
	nc, err := p.conf.Dial.Dial(ctx, p.host)
	if err != nil {
		return nil, nil, err
	}
	conn, werr := wire.New(nc, wire.Options{
		Rx: &p.conf.Traffic.CxRxBytes, Tx: &p.conf.Traffic.CxTxBytes, High: p.conf.HighWatermark,
	})
	if werr != nil {
		_ = nc.Close()
		return nil, nil, &dial.Error{Reason: stream.ReasonLocalConnectionFailure, Err: werr}
	}
	if p.conf.Transport == nil {
		return conn, nil, nil
	}
	to := p.conf.Transport(p.host)
	if to == nil {
		return conn, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.conf.Dial.Timeout-time.Since(start))
	defer cancel()
	ask := p.ask
	ask.HostName, ask.FallbackALPN = p.host.Hostname(), alpn
	ask.HostMetadata = p.host.Attr().Metadata
	session, terr := to.Connect(ctx, conn, &ask)
	if terr != nil {
		conn.Close()
		return nil, nil, transportFailed(terr)
	}
	return conn, session, nil
}

// alpn is what the pool's HTTP connections offer, as Envoy's do.
func (p *Pool) alpn() []string {
	switch {
	case !p.mux:
		return []string{alpnHTTP1}
	case p.conf.Auto:
		return []string{alpnHTTP2, alpnHTTP1}
	}
	return []string{alpnHTTP2}
}

// transportFailed is a failure of the transport as that of the connection which it is, in Envoy.
func transportFailed(e *filter.TransportError) *dial.Error {
	out := &dial.Error{Reason: stream.ReasonRemoteConnectionFailure, Transport: e.Transport, Err: e}
	switch {
	case errors.Is(e.Err, context.Canceled): // nobody waits for it any more
		out.Reason, out.Transport = stream.ReasonLocalConnectionFailure, ""
	case e.Timeout:
		out.Reason, out.Transport = stream.ReasonConnectionTimeout, ""
	}
	return out
}
