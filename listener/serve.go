package listener

import (
	"net"
	"net/netip"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/wire"
	"sidecar/listener/chain"
)

// generation is one version of a listener while it is in use.
type generation struct {
	cfg     *Config
	m       *Manager
	version string
	updated time.Time
	sockets []*socket
	stats   *Stats
	drain   []*Chain // chains that end with it
}

// serve is the life of a connection from accept to close, on its own goroutine.
func (g *generation) serve(nc net.Conn) {
	defer nc.Close() //nolint:errcheck // its reader has seen what there was to see
	g.stats.ConnectionsAccepted.Record(1)
	if !g.admit() {
		return
	}
	defer g.m.leave()
	info := &stream.ConnInfo{
		ID: g.m.ids.Add(1), Start: time.Now(), Local: addrOf(nc.LocalAddr()), Remote: addrOf(nc.RemoteAddr()),
		TransportProtocol: "raw_buffer",
	}
	info.Direct, info.DirectLocal = info.Remote, info.Local
	g.handle(nc, info, g.cfg.useOriginalDst)
}

// handle takes a connection through the listener filters to its chain, or to the listener for the
// address that they have restored. That one's filters see it too, but it does not hand it on.
func (g *generation) handle(nc net.Conn, info *stream.ConnInfo, handOff bool) {
	info.Listener, info.Direction, info.ListenerMetadata = g.cfg.Name, g.cfg.Direction, g.cfg.metadata
	if err := g.inspect(nc, info); err != nil {
		g.log(g.record(info, nil), 0, "")
		return
	}
	if handOff && info.LocalRestored {
		if other := g.m.byAddress(info.Local.IP); other != nil && other != g {
			other.handle(nc, info, false)
			return
		}
	}
	g.hand(nc, info)
}

// record is a connection's own record with what its socket moved, for the listener's access log.
type record struct {
	stream.Info
	rx, tx stats.Counter
}

// moved is what the connection's socket has read and written.
func (r *record) moved() (received, sent uint64) { return r.rx.Value(), r.tx.Value() }

// record returns nil if the listener logs nothing and the chain, which may be nil, has no filters that
// could want it.
func (g *generation) record(info *stream.ConnInfo, ch *Chain) *record {
	if len(g.cfg.accessLogs) == 0 && (ch == nil || len(ch.filters) == 0) {
		return nil
	}
	r := &record{}
	r.Reset(info.Start, info)
	r.Remote, r.RemotePort = info.Remote.IP.Addr(), info.Remote.IP.Port()
	r.Metadata = info.Metadata
	return r
}

// hand finds the filter chain and gives it the connection.
func (g *generation) hand(nc net.Conn, info *stream.ConnInfo) {
	ch := g.cfg.fallback
	if i := chain.Find(g.cfg.matches, info); i >= 0 {
		ch = g.cfg.chains[i]
	}
	if ch == nil {
		g.stats.NoChain.Inc()
		g.log(g.record(info, nil), stream.NoRouteFound, "filter_chain_not_found")
		return
	}
	info.Chain = ch.Name
	opt := wire.Options{High: g.cfg.bufferLimit}
	r := g.record(info, ch)
	if r != nil {
		info.Record = &r.Info
		opt.Rx, opt.Tx = &r.rx, &r.tx
	}
	w, err := wire.New(nc, opt)
	if err != nil || !ch.conns.add(w) {
		return
	}
	g.stats.CxTotal.Inc()
	g.stats.CxActive.Inc()
	defer func() { // also when a filter panics
		ch.conns.remove(w)
		w.Close()
		g.stats.CxActive.Dec()
		g.stats.CxDestroy.Inc()
		g.stats.CxLength.Record(uint64(time.Since(info.Start).Milliseconds()))
		g.log(r, 0, "")
	}()
	if !g.secure(ch, w, info) {
		return
	}
	g.run(ch, w, info, r)
}

// run gives the connection to the chain's filters.
func (g *generation) run(ch *Chain, w *wire.Conn, info *stream.ConnInfo, r *record) {
	t := stream.NewTurn()
	if len(ch.filters) == 0 {
		ch.terminal.Serve(t, w, info, ch.drain)
		return
	}
	info.Record.Metadata = info.Metadata
	run, ok := ch.filters.Begin(t, &filter.Connection{Wire: w, Info: info, Moved: r.moved})
	defer func() {
		r.complete()
		run.End(&r.Info)
	}()
	if ok {
		ch.terminal.Serve(t, w, info, ch.drain)
	}
}

// complete fills in what a terminal filter has left open.
func (r *record) complete() {
	if r.BytesReceived == 0 && r.BytesSent == 0 {
		r.BytesReceived, r.BytesSent = r.moved()
	}
	r.Complete = time.Since(r.Start)
}

// log writes the listener's access log, with the type that Envoy gives such lines: none.
//
// DIVERGES(listener_access_log): protocol and flags of an HTTP connection are in the lines of its
// requests only.
func (g *generation) log(r *record, f stream.Flag, details string) {
	if r == nil {
		return
	}
	r.Flags |= f
	if details != "" {
		r.Details = details
	}
	r.complete()
	r.LogType = stream.LogNotSet
	for _, l := range g.cfg.accessLogs {
		l.Log(&r.Info)
	}
}

// admit applies the connection limits; a connection over them is closed at once.
func (g *generation) admit() bool {
	m := g.m
	n := m.open.Add(1)
	if limit := g.cfg.connectionLimit; limit != nil {
		if n, ok := limit(); ok && uint64(g.stats.CxActive.Value()) >= n {
			g.stats.CxOverflow.Inc()
			m.leave()
			return false
		}
	}
	if m.limits == nil {
		return true
	}
	if !g.cfg.bypassOverload && m.limits.RejectConnections() {
		g.stats.CxOverloadReject.Inc()
		m.leave()
		return false
	}
	if limit := m.limits.MaxConnections(); !g.cfg.ignoreLimit && limit > 0 && n > limit {
		g.stats.GlobalCxOverflow.Inc()
		m.leave()
		return false
	}
	return true
}

func (m *Manager) leave() { m.open.Add(-1) }

// addrOf turns a socket's address into ours.
func addrOf(a net.Addr) stream.Addr {
	switch x := a.(type) {
	case *net.TCPAddr:
		return stream.IPAddr(x.AddrPort())
	case *net.UnixAddr:
		return stream.PipeAddr(x.Name)
	}
	return stream.Addr{}
}

// byAddress finds the listener that handles connections to an address, an exact one before one for
// all addresses of the port.
func (m *Manager) byAddress(a netip.AddrPort) *generation {
	idx := m.index.Load()
	if idx == nil {
		return nil
	}
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if g := idx.exact[a]; g != nil {
		return g
	}
	if g := idx.anyIP[anyPort{a.Port(), a.Addr().Is6()}]; g != nil {
		return g
	}
	return idx.compat[a.Port()]
}

// addressIndex finds listeners by address; it is immutable.
type addressIndex struct {
	exact map[netip.AddrPort]*generation
	anyIP map[anyPort]*generation
	// compat are those that listen at [::] for IPv4 too.
	compat map[uint16]*generation
}

type anyPort struct {
	port uint16
	v6   bool
}

func indexOf(list map[string]*generation) *addressIndex {
	x := &addressIndex{
		exact: map[netip.AddrPort]*generation{}, anyIP: map[anyPort]*generation{}, compat: map[uint16]*generation{},
	}
	for _, g := range list {
		for _, a := range g.cfg.Addresses {
			switch {
			case !a.IP.IsValid():
			case !a.IP.Addr().IsUnspecified():
				x.exact[netip.AddrPortFrom(a.IP.Addr().Unmap(), a.IP.Port())] = g
			default:
				x.anyIP[anyPort{a.IP.Port(), a.IP.Addr().Is6()}] = g
				if a.Network == "tcp" {
					x.compat[a.IP.Port()] = g
				}
			}
		}
	}
	return x
}
