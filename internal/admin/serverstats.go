package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
)

// serverStats are the http.admin.* stats that this server has a use for.
type serverStats struct {
	CxTotal     stats.Counter `stat:"downstream_cx_total"`
	CxActive    stats.Gauge   `stat:"downstream_cx_active"`
	RqTotal     stats.Counter `stat:"downstream_rq_total"`
	RqActive    stats.Gauge   `stat:"downstream_rq_active"`
	RqCompleted stats.Counter `stat:"downstream_rq_completed"`
	Rq2xx       stats.Counter `stat:"downstream_rq_2xx"`
	Rq3xx       stats.Counter `stat:"downstream_rq_3xx"`
	Rq4xx       stats.Counter `stat:"downstream_rq_4xx"`
	Rq5xx       stats.Counter `stat:"downstream_rq_5xx"`
}

func newStats(s *stats.Store) *serverStats {
	return stats.Bind[serverStats](s.Scope("http").Sub("admin"))
}

func (s *serverStats) onConn(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.CxTotal.Inc()
		s.CxActive.Inc()
	case http.StateClosed, http.StateHijacked:
		s.CxActive.Dec()
	case http.StateActive, http.StateIdle:
	}
}

func (s *serverStats) done(status int) {
	s.RqActive.Dec()
	s.RqCompleted.Inc()
	switch status / 100 {
	case 2:
		s.Rq2xx.Inc()
	case 3:
		s.Rq3xx.Inc()
	case 4:
		s.Rq4xx.Inc()
	case 5:
		s.Rq5xx.Inc()
	}
}

// log hands a record of the request to the access logs.
func (s *Server) log(r *http.Request, status int, sent uint64, start time.Time) {
	if len(s.options.AccessLogs) == 0 {
		return
	}
	in := &stream.Info{}
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	conn := &stream.ConnInfo{Start: start, Remote: stream.IPAddr(remote), Direct: stream.IPAddr(remote)}
	if local, isAddr := r.Context().Value(http.LocalAddrContextKey).(net.Addr); isAddr {
		if a, err := netip.ParseAddrPort(local.String()); err == nil {
			conn.Local = stream.IPAddr(a)
		} else {
			conn.Local = stream.PipeAddr(local.String())
		}
	}
	if !remote.IsValid() {
		conn.Remote, conn.Direct = stream.PipeAddr(r.RemoteAddr), stream.PipeAddr(r.RemoteAddr)
	}
	in.Reset(start, conn)
	in.Request, in.Response = &header.Map{}, &header.Map{}
	in.Request.Add(":method", r.Method)
	in.Request.Add(":path", r.RequestURI)
	in.Request.Add(":authority", r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			in.Request.Add(strings.ToLower(name), v)
		}
	}
	in.Response.Add(":status", strconv.Itoa(status))
	in.Protocol = stream.HTTP11
	if r.ProtoMajor == 2 {
		in.Protocol = stream.HTTP2
	} else if r.ProtoMinor == 0 {
		in.Protocol = stream.HTTP10
	}
	in.Status, in.BytesSent, in.Details = status, sent, "admin_filter_response"
	in.LogType = stream.LogDownstreamEnd
	in.Complete = time.Since(start)
	for _, l := range s.options.AccessLogs {
		l.Log(in)
	}
}
