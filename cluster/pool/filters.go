package pool

import (
	"errors"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster/dial"
	"sidecar/internal/netfilter"
	"sidecar/internal/wire"
)

// errFiltered is a connection that a network filter has closed.
var errFiltered = errors.New("closed by a network filter")

// filtered is what a connection has whose cluster has network filters.
type filtered struct {
	run    netfilter.Run
	record stream.Info
	info   stream.ConnInfo
	rx, tx stats.Counter
}

// filter begins the network filters of a connection whose transport is ready, on the goroutine that
// dialed it.
func (p *Pool) filter(conn *wire.Conn, session *stream.TLSInfo, since time.Time) (*filtered, *dial.Error) {
	if len(p.conf.Filters) == 0 {
		return nil, nil
	}
	f := &filtered{}
	f.info = stream.ConnInfo{
		Start: since, Local: socketAddr(conn.Net().LocalAddr()), Remote: socketAddr(conn.Net().RemoteAddr()),
		TransportProtocol: "raw_buffer", TLS: session, Record: &f.record,
	}
	f.info.Direct = f.info.Remote
	if session != nil {
		f.info.TransportProtocol, f.info.ALPN, f.info.SNI = "tls", session.ALPN, session.SNI
	}
	f.record.Reset(since, &f.info)
	u := &f.record.Upstream
	u.Host, u.HostName, u.HostMetadata = p.host.Addr(), p.host.Hostname(), p.host.Attr().Metadata
	u.Cluster, u.Local, u.Remote, u.TLS = p.conf.ClusterName, f.info.Local, f.info.Remote, session
	f.record.ClusterMetadata = p.conf.ClusterMetadata
	conn.Count(&f.rx, &f.tx)
	var ok bool
	stream.Do(func(t *stream.Turn) {
		f.run, ok = p.conf.Filters.Begin(t, &filter.Connection{
			Wire: conn, Info: &f.info, Upstream: true, Moved: f.moved,
		})
	})
	if !ok {
		f.end()
		return nil, &dial.Error{Reason: stream.ReasonLocalConnectionFailure, Err: errFiltered}
	}
	return f, nil
}

func (f *filtered) moved() (received, sent uint64) { return f.rx.Value(), f.tx.Value() }

// end tells the filters that the connection has ended; f may be nil.
func (f *filtered) end() {
	if f == nil {
		return
	}
	f.record.BytesReceived, f.record.BytesSent = f.moved()
	f.record.Complete = time.Since(f.record.Start)
	f.run.End(&f.record)
}

// conn returns the connection's record as its filters see it; nil without filters.
func (f *filtered) conn() *stream.ConnInfo {
	if f == nil {
		return nil
	}
	return &f.info
}

// Filtered returns the record that the cluster's network filters share with those who use the
// connection; nil if the cluster has no filters.
func (c *Conn) Filtered() *stream.ConnInfo { return c.filtered.conn() }

// Filtered is as Conn.Filtered.
func (c *TCP) Filtered() *stream.ConnInfo { return c.filtered.conn() }
