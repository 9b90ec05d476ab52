package listener

import (
	"net"
	"net/netip"
	"time"

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
	scope   *stats.Scope
	drain   []*Chain // chains that end with it
}

// serve is the life of a connection from accept to close, on its own goroutine.
func (g *generation) serve(nc net.Conn, from *stream.ConnInfo) {
	defer nc.Close() //nolint:errcheck // its reader has seen what there was to see
	if !g.admit() {
		return
	}
	defer g.m.leave()
	now := time.Now()
	g.stats.CxTotal.Inc()
	g.stats.CxActive.Inc()
	defer func() {
		g.stats.CxActive.Dec()
		g.stats.CxDestroy.Inc()
		g.stats.CxLength.Record(uint64(time.Since(now).Milliseconds()))
	}()
	info := from
	if info == nil {
		info = &stream.ConnInfo{
			ID: g.m.ids.Add(1), Start: now, Local: addrOf(nc.LocalAddr()), Remote: addrOf(nc.RemoteAddr()),
			TransportProtocol: "raw_buffer",
		}
		info.Direct, info.DirectLocal = info.Remote, info.Local
	}
	info.Listener, info.Direction, info.ListenerMetadata = g.cfg.Name, g.cfg.Direction, g.cfg.metadata
	if err := g.inspect(nc, info); err != nil {
		return
	}
	if g.cfg.useOriginalDst && info.LocalRestored && from == nil {
		if other := g.m.byAddress(info.Local.IP); other != nil && other != g {
			other.handOff(nc, info)
			return
		}
	}
	g.hand(nc, info)
}

// handOff serves a connection that another listener accepted for this one's address.
func (g *generation) handOff(nc net.Conn, info *stream.ConnInfo) {
	g.stats.CxTotal.Inc()
	g.stats.CxActive.Inc()
	defer func() {
		g.stats.CxActive.Dec()
		g.stats.CxDestroy.Inc()
	}()
	info.Listener, info.Direction, info.ListenerMetadata = g.cfg.Name, g.cfg.Direction, g.cfg.metadata
	if err := g.inspect(nc, info); err != nil {
		return
	}
	g.hand(nc, info)
}

// hand finds the filter chain and gives it the connection.
func (g *generation) hand(nc net.Conn, info *stream.ConnInfo) {
	ch := g.cfg.fallback
	if i := chain.Find(g.cfg.matches, info); i >= 0 {
		ch = g.cfg.chains[i]
	}
	if ch == nil {
		g.stats.NoChain.Inc()
		g.logRefused(info)
		return
	}
	info.Chain = ch.Name
	w, err := wire.New(nc, wire.Options{High: g.cfg.bufferLimit})
	if err != nil {
		return
	}
	if !ch.conns.add(w) {
		return
	}
	ch.terminal.Serve(stream.NewTurn(), w, info, ch.drain)
	ch.conns.remove(w)
	w.Close()
}

func (g *generation) logRefused(info *stream.ConnInfo) {
	if len(g.cfg.accessLogs) == 0 {
		return
	}
	var rec stream.Info
	rec.Reset(info.Start, info)
	rec.Flags, rec.Details = stream.NoRouteFound, "filter_chain_not_found"
	rec.LogType = stream.LogTCPConnectionEnd
	rec.Complete = time.Since(info.Start)
	for _, l := range g.cfg.accessLogs {
		l.Log(&rec)
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
	return idx.anyIP[a.Port()]
}

type addressIndex struct {
	exact map[netip.AddrPort]*generation
	anyIP map[uint16]*generation
}

func indexOf(list map[string]*generation) *addressIndex {
	x := &addressIndex{exact: map[netip.AddrPort]*generation{}, anyIP: map[uint16]*generation{}}
	for _, g := range list {
		for _, a := range g.cfg.Addresses {
			switch {
			case !a.IP.IsValid():
			case a.IP.Addr().IsUnspecified():
				x.anyIP[a.IP.Port()] = g
			default:
				x.exact[netip.AddrPortFrom(a.IP.Addr().Unmap(), a.IP.Port())] = g
			}
		}
	}
	return x
}
