package hcm

import (
	"strings"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/grpchttp"
)

// onRequestHeaders is the head of a request as the codec read it: it is checked, changed as Envoy
// changes it, and shown to the filters.
func (s *Stream) onRequestHeaders(t *stream.Turn, h *header.Map, end bool) {
	s.info.Request = h
	s.info.Protocol = s.enc.Protocol()
	s.info.SchemeMatchUpstream = s.cfg.schemeMatchUpstream
	s.isHead = h.Value(header.Method) == "HEAD"
	s.isGRPC = grpchttp.IsRequest(h)
	s.disarm(timerHeaders)
	if end {
		s.requestEnded(t)
	} else {
		s.arm(t, timerRequest, s.cfg.requestTimeout)
	}
	s.sendContinue(t, h)
	if r := s.refuse(t, h); r != nil {
		s.reply(t, r)
		return
	}
	s.mutateRequest(h)
	upgrade, ok := s.filtersFor(h)
	if !ok {
		s.cfg.stats.WsOnNonWs.Inc()
		// What follows may be the payload of an upgrade that the client takes for granted.
		s.closeAfter = true
		s.reply(t, &upgradeFailed)
		return
	}
	if upgrade {
		s.upgraded = true
		s.cfg.stats.CxUpgradesTotal.Inc()
		s.cfg.stats.CxUpgradesActive.Inc()
	}
	s.makeFilters()
	s.arm(t, timerDuration, s.maxDuration(h))
	s.pushHeaders(t, 0, 0, end)
}

// sendContinue answers Expect: 100-continue, unless that is left to the upstream.
func (s *Stream) sendContinue(t *stream.Turn, h *header.Map) {
	v, ok := h.GetID(header.Expect)
	if !ok || s.cfg.proxy100Continue || !strings.EqualFold(v, "100-continue") {
		return
	}
	s.countStatus(100)
	h.RemoveID(header.Expect)
	m := &s.localResponse // not in use before the request was shown to anyone
	m.Reset()
	m.AddStatic(":status", "100")
	s.enc.EncodeInterim(t, m)
}

// refuse makes Envoy's checks of a head, in Envoy's order; nil lets it pass
// (ConnectionManagerImpl::ActiveStream::decodeHeaders).
func (s *Stream) refuse(_ *stream.Turn, h *header.Map) *filter.Reply {
	c := s.cfg
	host, hasHost := h.GetID(header.Authority)
	if s.info.Protocol == stream.HTTP10 && !c.acceptHTTP10 {
		return &lowVersion
	}
	if !hasHost {
		return &missingHost
	}
	connect := h.Value(header.Method) == "CONNECT" && !h.Has(header.Protocol)
	path, hasPath := h.GetID(header.Path)
	if !hasPath || path == "" {
		if !connect {
			return &missingPath
		}
	} else if path[0] != '/' && !connect {
		c.stats.RqNonRelativePath.Inc()
		return &absolutePath
	}
	if hasPath && !connect {
		if r := s.normalizePath(h, path); r != nil {
			return r
		}
	}
	s.stripHost(h, host)
	return nil
}

// stripHost removes the port and the trailing dot of the host as configured
// (ConnectionManagerUtility::maybeNormalizeHost).
func (s *Stream) stripHost(h *header.Map, host string) {
	c := s.cfg
	if !c.stripAnyPort && !c.stripMatchingPort && !c.stripTrailingDot {
		return
	}
	out := host
	name, port, has := splitPort(host)
	if has && (c.stripAnyPort || (c.stripMatchingPort && port == s.conn.localPort)) {
		out, has = name, false
	}
	if c.stripTrailingDot {
		if has {
			if strings.HasSuffix(name, ".") {
				out = name[:len(name)-1] + out[len(name):]
			}
		} else {
			out = strings.TrimSuffix(out, ".")
		}
	}
	if out != host {
		h.SetID(header.Authority, out)
	}
}

// splitPort splits "host:port"; IPv6 addresses stand in brackets.
func splitPort(host string) (name string, port uint16, ok bool) {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || (host[0] == '[' && host[i-1] != ']') || i+1 == len(host) {
		return host, 0, false
	}
	n := 0
	for _, c := range []byte(host[i+1:]) {
		if c < '0' || c > '9' {
			return host, 0, false
		}
		if n = n*10 + int(c-'0'); n > 65535 {
			return host, 0, false
		}
	}
	return host[:i], uint16(n), true
}

// internalOnly are the headers that only an internal client may send; from others they are removed
// (ConnectionManagerUtility::cleanInternalHeaders).
//
//nolint:gochecknoglobals // immutable table
var internalOnly = [...]header.ID{
	header.XEnvoyRetriableStatusCodes, header.XEnvoyRetriableHeaderNames, header.XEnvoyRetryOn,
	header.XEnvoyRetryGrpcOn, header.XEnvoyMaxRetries, header.XEnvoyUpstreamAltStatName,
	header.XEnvoyUpstreamRqTimeoutMs, header.XEnvoyUpstreamRqPerTryTimeoutMs,
	header.XEnvoyExpectedRqTimeoutMs, header.XEnvoyForceTrace, header.XEnvoyIPTags,
	header.XEnvoyOriginalURL, header.XEnvoyHedgeOnPerTryTimeout,
	header.XEnvoyUpstreamRqTimeoutAltResponse,
}

// mutateRequest is ConnectionManagerUtility::mutateRequestHeaders.
func (s *Stream) mutateRequest(h *header.Map) {
	c := s.cfg
	if isUpgrade(h) {
		// The body of an upgraded request has no length on the wire; without one of the two headers it
		// would read as none.
		if !h.Has(header.TransferEncoding) && !h.Has(header.ContentLength) {
			h.SetStatic(header.ContentLength, "0")
		}
	} else {
		h.RemoveID(header.Connection)
		h.RemoveID(header.Upgrade)
	}
	h.RemoveID(header.XEnvoyInternal)
	h.RemoveID(header.KeepAlive)
	h.RemoveID(header.ProxyConnection)
	h.RemoveID(header.TransferEncoding)
	if te, ok := h.GetID(header.TE); ok {
		// Only trailers is end to end (RFC 9110 §10.1.4).
		if te != "trailers" && hasExactToken(te, "trailers") {
			h.SetStatic(header.TE, "trailers")
		} else if te != "trailers" {
			h.RemoveID(header.TE)
		}
	}

	internal := s.setRemote(h)
	edge := !internal && c.useRemoteAddress
	s.info.Internal = internal
	if internal {
		h.SetStatic(header.XEnvoyInternal, "true")
	} else {
		s.cleanExternal(h, edge)
	}
	if c.addUserAgent {
		h.SetStatic(header.XEnvoyDownstreamServiceCluster, c.localCluster)
		if !h.Has(header.UserAgent) {
			h.SetStatic(header.UserAgent, c.localCluster)
		}
		if c.localNode != "" {
			h.SetStatic(header.XEnvoyDownstreamServiceNode, c.localNode)
		}
	}
	if c.via != "" {
		appendVia(h, c.via)
	}
	if edge && s.info.Remote.IsValid() {
		s.scratch = s.info.Remote.AppendTo(s.scratch[:0])
		h.SetBytes(header.XEnvoyExternalAddress, s.scratch)
	}
	if c.generateRequestID {
		s.setRequestID(h, edge)
	}
	s.mark(h)
	if id, ok := h.GetID(header.XRequestID); ok {
		s.info.RequestID = id
	}
	c.xfcc.apply(h, &s.conn.cert)
}

func (s *Stream) cleanExternal(h *header.Map, edge bool) {
	if edge {
		h.RemoveID(header.XEnvoyDecoratorOperation)
		h.RemoveID(header.XEnvoyDownstreamServiceCluster)
		h.RemoveID(header.XEnvoyDownstreamServiceNode)
		h.RemoveID(header.XEnvoyOriginalPath)
	}
	for _, id := range internalOnly {
		h.RemoveID(id)
	}
	if edge {
		h.RemoveID(header.XEnvoyIsTimeoutRetry)
	}
	if s.table != nil {
		for _, name := range s.table.InternalOnlyHeaders() {
			h.Remove(name)
		}
	}
}

// setRemote finds who the client is, appends to x-forwarded-for and sets x-forwarded-proto and
// :scheme. It tells whether the request is an internal one.
func (s *Stream) setRemote(h *header.Map) bool {
	c := s.cfg
	peer := s.conn.info.Remote.IP.Addr()
	var trusted bool
	if c.useRemoteAddress {
		trusted = !h.Has(header.XForwardedFor)
		if c.xffTrustedHops > 0 {
			s.info.Remote, _ = lastFromXFF(h.Value(header.XForwardedFor), c.xffTrustedHops-1)
		}
		if !s.info.Remote.IsValid() {
			s.info.Remote = peer
		}
		if !c.skipXFFAppend {
			s.appendXFF(h)
		}
		if c.xffTrustedHops == 0 || !h.Has(header.XForwardedProto) {
			h.SetStatic(header.XForwardedProto, s.conn.scheme)
		}
		if c.appendXForwardedPort && (c.xffTrustedHops == 0 || !h.Has(header.XForwardedPort)) {
			h.SetID(header.XForwardedPort, s.conn.localPortText)
		}
	} else {
		s.info.Remote, trusted = lastFromXFF(h.Value(header.XForwardedFor), c.xffTrustedHops)
	}
	if !h.Has(header.XForwardedProto) {
		h.SetStatic(header.XForwardedProto, s.conn.scheme)
	}
	s.setScheme(h)
	internal := trusted && s.info.Remote.IsValid() && c.isInternal(s.info.Remote)
	if !s.info.Remote.IsValid() {
		s.info.Remote, s.info.RemotePort = peer, s.conn.info.Remote.IP.Port()
	} else if s.info.Remote == peer {
		s.info.RemotePort = s.conn.info.Remote.IP.Port()
	}
	return internal
}

// setScheme sets :scheme from x-forwarded-proto, which says what the client really used, or to what
// the configuration says.
func (s *Stream) setScheme(h *header.Map) {
	switch {
	case s.cfg.schemeOverwrite != "":
		h.SetStatic(header.Scheme, s.cfg.schemeOverwrite)
		h.SetStatic(header.XForwardedProto, s.cfg.schemeOverwrite)
	case h.Has(header.Scheme) && !s.cfg.schemeMatchUpstream:
	default:
		if p := h.Value(header.XForwardedProto); p == "http" || p == "https" {
			h.SetID(header.Scheme, p)
		} else {
			h.SetStatic(header.Scheme, s.conn.scheme)
		}
	}
}

// appendXFF adds the peer to x-forwarded-for; a loopback peer is shown as the node's own address
// (Envoy: Utility::appendXff, ConnectionManagerUtility).
func (s *Stream) appendXFF(h *header.Map) {
	addr := s.conn.remoteText
	if addr == "" {
		return // a unix socket's peer has no address
	}
	if s.conn.remoteLoopback {
		addr = s.cfg.localAddress
	}
	h.AddID(header.XForwardedFor, addr)
}

func (s *Stream) setRequestID(h *header.Map, edge bool) {
	if h.Has(header.XRequestID) && (!edge || s.cfg.preserveRequestID) {
		return
	}
	s.scratch = appendUUID(s.scratch[:0], s.cfg.random(), s.cfg.random())
	h.SetBytes(header.XRequestID, s.scratch)
}

func appendVia(h *header.Map, via string) {
	if old, ok := h.GetID(header.Via); ok {
		h.SetConcat(header.Via, old, ", "+via)
		return
	}
	h.SetStatic(header.Via, via)
}

// isUpgrade tells whether the head asks to leave HTTP (Utility::isUpgrade).
func isUpgrade(h *header.Map) bool {
	return h.Has(header.Upgrade) && hasToken(h.Value(header.Connection), "upgrade")
}

func hasExactToken(list, token string) bool {
	for list != "" {
		var item string
		item, list, _ = strings.Cut(list, ",")
		if strings.TrimSpace(item) == token {
			return true
		}
	}
	return false
}

func hasToken(list, token string) bool {
	for list != "" {
		var item string
		item, list, _ = strings.Cut(list, ",")
		if strings.EqualFold(strings.TrimSpace(item), token) {
			return true
		}
	}
	return false
}
