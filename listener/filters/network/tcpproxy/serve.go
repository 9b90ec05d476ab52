package tcpproxy

import (
	"time"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/outlier"
	"sidecar/internal/wire"
)

// Serve implements filter.NetworkTerminal. A TCP proxy does not look at the drainer, as in Envoy: its
// connections end when the drain time is over.
func (c *Config) Serve(t *stream.Turn, down *wire.Conn, info *stream.ConnInfo, _ filter.Drainer) {
	s := &session{cfg: c, maxDuration: c.duration(), down: down, info: info.Record, ready: make(chan stream.Event, 1)}
	if s.info == nil {
		s.info = &s.own
	}
	s.room[0], s.room[1] = make(chan struct{}, 1), make(chan struct{}, 1)
	s.info.Reset(info.Start, info)
	s.info.Remote, s.info.RemotePort = info.Remote.IP.Addr(), info.Remote.IP.Port()
	s.info.Metadata = info.Metadata
	c.stats.CxTotal.Inc()
	if c.logOnStart {
		s.log(s.info, stream.LogTCPConnectionStart)
	}
	if s.connect(t) {
		if info.OnUpstream != nil {
			info.OnUpstream(s.info)
		}
		if c.logOnConnected {
			s.log(s.info, stream.LogTCPUpstreamConnected)
		}
		if u := s.tunnel.Load(); u != nil {
			s.runTunnel(t, u)
		} else {
			s.run(t)
		}
	}
	s.finish()
}

// Receive takes the pool's answer and wakes the goroutine of Serve, which watches the client.
func (s *session) Receive(_ *stream.Turn, e *stream.Event) { s.answer(e) }

// answer is what Receive does.
func (s *session) answer(e *stream.Event) {
	select {
	case s.ready <- *e:
		_ = s.down.SetReadDeadline(time.Unix(1, 0))
	default:
	}
}

// connect tries hosts of one cluster until one is reached or the attempts are used up. Flags of
// attempts that failed stay, as in Envoy.
func (s *session) connect(t *stream.Turn) bool {
	c := s.cfg
	name := c.pick()
	cl := c.clusters.Get(name)
	if cl == nil {
		c.stats.CxNoRoute.Inc()
		s.info.Flags |= stream.NoClusterFound
		return false
	}
	s.info.Cluster = name
	s.info.Upstream.Cluster = cl.Config().ObservabilityName()
	s.info.ClusterMetadata = cl.Config().Metadata
	for try := 1; ; try++ {
		attempt := s.attempt
		if c.tunnel != nil {
			attempt = s.openTunnel
		}
		f, gone := attempt(t, cl, uint32(try))
		if gone {
			return false
		}
		if f == nil {
			return true
		}
		s.info.Flags |= f.Flag
		s.info.Upstream.TransportFailure = f.Transport
		if f.Flag&stream.UpstreamConnectionFailure == 0 {
			return false // nothing to connect to, or a breaker: no use in trying again
		}
		if try >= c.maxAttempts {
			s.info.Flags |= stream.UpstreamRetryLimitExceeded | stream.FailureFirst
			cl.Traffic().CxAttemptsExceeded.Inc()
			return false
		}
	}
}

// attempt connects to one host. It waits on the client's socket, so that a client that resets its
// connection meanwhile gives up the attempt; gone tells of that. One that has only ended its side is
// served: it may have sent a request.
func (s *session) attempt(t *stream.Turn, cl *cluster.Cluster, seq uint32) (f *stream.Fault, gone bool) {
	var a cluster.Attempt
	ctx := cluster.Context{Seq: seq, Info: s.info, Hint: uint32(s.info.Conn.ID), Conn: s.info.Conn}
	ctx.Hash, ctx.HasHash = s.cfg.hash.of(s.info)
	ctx.Ask = cl.Ask(nil, "", s.info)
	f = cl.Connect(&ctx, stream.Target{M: &s.mon, To: s, Gen: s.mon.Gen()}, &a)
	failure := s.info.Upstream.TransportFailure
	a.Describe(&s.info.Upstream)
	s.info.Upstream.TransportFailure = failure
	if f != nil {
		return f, false
	}
	s.info.Attempts++
	e, gone := s.await(t, &a)
	if e.Kind == stream.EventReady && a.Resolved() {
		if _, f = a.Continue(t); f != nil {
			return f, false
		}
		e, gone = s.await(t, &a)
	}
	if gone {
		return nil, true
	}
	if e.Kind == stream.EventFailed {
		judge(&a, e.Fault)
		return e.Fault, false
	}
	s.up = a.OpenTCP()
	a.Describe(&s.info.Upstream)
	if s.up == nil {
		return &stream.Fault{Flag: stream.UpstreamConnectionFailure}, false
	}
	a.Report(outlier.ConnectedFinal, 0)
	return nil, false
}

// judge tells outlier detection of a host that could not be reached. What failed on our side says
// nothing of it (TcpProxy::Filter::onGenericPoolFailure).
func judge(a *cluster.Attempt, f *stream.Fault) {
	switch f.Reason {
	case stream.ReasonRemoteConnectionFailure:
		a.Report(outlier.ConnectFailed, 0)
	case stream.ReasonConnectionTimeout:
		a.Report(outlier.Timeout, 0)
	default:
	}
}

// await waits for the pool; gone says that the client has left, and the attempt is given up.
func (s *session) await(t *stream.Turn, a *cluster.Attempt) (e stream.Event, gone bool) {
	s.down.AwaitReset()
	select {
	case e = <-s.ready:
	default:
		a.Cancel(t)
		return stream.Event{}, true
	}
	if err := s.down.SetReadDeadline(time.Time{}); err != nil {
		a.Cancel(t)
		return stream.Event{}, true // the client has gone
	}
	return e, false
}

// finish counts and logs the session.
func (s *session) finish() {
	s.close()
	c := s.cfg
	switch s.timedOut.Load() {
	case idleTimeout:
		c.stats.IdleTimeout.Inc()
	case durationTimeout:
		c.stats.MaxDuration.Inc()
		s.info.Flags |= stream.DurationTimeout
	}
	if s.reset.Load() {
		s.info.Flags |= stream.UpstreamRemoteReset
	}
	if f := s.failed[toUpstream]; f != "" {
		s.info.Conn.TransportFailure = f
	}
	if f := s.failed[toDownstream]; f != "" {
		s.info.Upstream.TransportFailure = f
	}
	s.mon.Retire()
	s.log(s.info, stream.LogTCPConnectionEnd)
}

// log completes a record and writes it.
func (s *session) log(r *stream.Info, why stream.AccessLogType) {
	r.BytesReceived, r.BytesSent = s.moved[toUpstream].Load(), s.moved[toDownstream].Load()
	r.DownstreamWire = stream.Traffic{WireReceived: r.BytesReceived, WireSent: r.BytesSent}
	r.UpstreamWire = stream.Traffic{WireReceived: r.BytesSent, WireSent: r.BytesReceived}
	r.Complete = time.Since(r.Start)
	r.LogType = why
	for _, l := range s.cfg.logs {
		l.Log(r)
	}
}
