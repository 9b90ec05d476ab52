package abi

// Peer says who has closed a connection.
type Peer uint32

// The peers.
const (
	UnknownPeer Peer = iota
	LocalPeer
	RemotePeer
)

// NetworkPhases tells which callbacks of connections a module has.
type NetworkPhases struct {
	Downstream, Upstream, DownstreamClose bool
}

// NetworkPhases of the module.
func (m *Module) NetworkPhases() NetworkPhases {
	return NetworkPhases{
		Downstream: m.has(cbDownstreamData), Upstream: m.has(cbUpstreamData), DownstreamClose: m.has(cbDownstreamClose),
	}
}

// NewConnection runs on_new_connection: every action but Continue stops.
func (v *VM) NewConnection(c Context, id uint32) (Action, error) {
	return v.action(cbNewConnection, c, uint64(id))
}

// Data runs on_downstream_data or on_upstream_data.
func (v *VM) Data(upstream bool, c Context, id uint32, size int, end bool) (Action, error) {
	cb := cbDownstreamData
	if upstream {
		cb = cbUpstreamData
	}
	return v.action(cb, c, uint64(id), uint64(size), flag(end))
}

// ConnectionClosed runs on_downstream_connection_close or on_upstream_connection_close.
func (v *VM) ConnectionClosed(upstream bool, c Context, id uint32, p Peer) error {
	cb := cbDownstreamClose
	if upstream {
		cb = cbUpstreamClose
	}
	return v.notify(cb, c, uint64(id), uint64(p))
}
