package wasmhost

import (
	"encoding/binary"
	"time"

	"sidecar/api/stream"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/attribute"
)

// dnsBlock is the form that envoy_on_resolve_dns reads: a count, the times to live, the addresses.
func dnsBlock(addrs []string, ttl time.Duration) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(addrs)))
	for range addrs {
		b = binary.LittleEndian.AppendUint32(b, uint32(ttl/time.Second))
	}
	for _, a := range addrs {
		b = append(append(b, a...), 0)
	}
	return b
}

// Maps are a placement's header maps, as far as they can be reached; attributes are read from them.
type Maps = abi.Maps

// lookup finds an attribute of a stream, or of the plugin where i is nil.
func (p *Plugin) lookup(i *stream.Info, m Maps, path string) (attribute.Value, abi.Status) {
	s := attribute.Source{Info: i, Node: p.host.node, Endpoints: p.host.opts.Endpoints}
	if m != nil {
		s.Maps = m
	}
	return s.Lookup(path)
}

// AppendProperty answers the properties of the plugin itself, and those of a stream: i may be nil.
func (p *Plugin) AppendProperty(b []byte, i *stream.Info, m Maps, path string) ([]byte, abi.Status) {
	switch path {
	case "plugin_name":
		return append(b, p.config.Name...), abi.OK
	case "plugin_root_id":
		return append(b, p.config.RootID...), abi.OK
	case "plugin_vm_id":
		return append(b, p.config.VMID...), abi.OK
	}
	v, s := p.lookup(i, m, path)
	if s != abi.OK {
		return b, s
	}
	return v.Append(b)
}

// Resolve is AppendProperty for expressions.
func (p *Plugin) Resolve(i *stream.Info, m Maps, path string) (any, bool) {
	switch path {
	case "plugin_name":
		return p.config.Name, true
	case "plugin_root_id":
		return p.config.RootID, true
	case "plugin_vm_id":
		return p.config.VMID, true
	}
	v, s := p.lookup(i, m, path)
	return attribute.Any(v), s == abi.OK
}
