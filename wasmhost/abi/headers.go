package abi

import (
	"sidecar/api/header"
)

// readMap finds a map to read. The status is OK with a nil map when it isn't there now.
func (c call) readMap(m MapType) (*header.Map, Status) {
	switch {
	case m >= numMaps:
		return nil, BadArgument
	case m == CallResponseHeaders:
		return c.callMap(c.vm.call.Headers)
	case m == CallResponseTrailers:
		return c.callMap(c.vm.call.Trailers)
	case m == GRPCInitialMetadata:
		return c.vm.received.initial, OK
	case m == GRPCTrailingMetadata:
		return c.vm.received.trailing, OK
	case c.vm.effective == nil:
		return nil, OK
	}
	return c.vm.effective.Headers(m)
}

// callMap is a map of an answer. An answer that lacks it answers a get with NotFound, which SDKs take
// where they trap on BadArgument; Envoy never shows one without headers.
func (c call) callMap(m *header.Map) (*header.Map, Status) {
	if m == nil && c.vm.call.present {
		return nil, NotFound
	}
	return m, OK
}

func (c call) writeMap(m MapType) *header.Map {
	if m >= GRPCInitialMetadata || c.vm.effective == nil {
		return nil
	}
	return c.vm.effective.MutableHeaders(m)
}

// getHeader gives the first value of a name only. 0.1.0 knows no NotFound: there it is an empty one.
func getHeader(c call) (Status, error) {
	name, ok := c.name(1)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	m, s := c.readMap(MapType(c.a.U32(0)))
	if m == nil {
		if s == OK {
			s = BadArgument
		}
		if s == NotFound {
			return c.missing()
		}
		return s, nil
	}
	value, ok := m.Get(name)
	if !ok {
		return c.missing()
	}
	return c.resultText(3, value)
}

func (c call) missing() (Status, error) {
	if c.vm.module.Version == V010 {
		return c.result(3, nil)
	}
	return NotFound, nil
}

// getPairs of a map that isn't there is an empty result, not an error: SDKs depend on it.
func getPairs(c call) (Status, error) {
	m, s := c.readMap(MapType(c.a.U32(0)))
	if s == BadArgument {
		return s, nil
	}
	if m == nil {
		c.vm.noEffect("proxy_get_header_map_pairs", "the map is not there in this phase: it reads as empty")
		return c.result(1, nil)
	}
	b, s, err := c.reserve(1, pairsSize(m))
	if err != nil || s != OK {
		return s, err
	}
	putPairs(b, m)
	return OK, nil
}

// getMapSize is the length of all names and values. It looks the map up to change it, as Envoy does,
// and so can make trailers; a map that can only be read is measured too.
func getMapSize(c call) (Status, error) {
	t := MapType(c.a.U32(0))
	m := c.writeMap(t)
	if m == nil {
		var s Status
		if m, s = c.readMap(t); s == BadArgument || m == nil {
			return BadArgument, nil
		}
	}
	return c.word(1, uint32(m.Bytes()))
}

// edit runs a change of the map that parameter 0 names.
func (c call) edit(change func(m *header.Map, name, value string)) (Status, error) {
	name, ok1 := c.name(1)
	value, ok2 := c.text(3)
	if !ok1 || !ok2 {
		return InvalidMemoryAccess, nil
	}
	t := MapType(c.a.U32(0))
	m := c.writeMap(t)
	if m == nil {
		return BadArgument, nil
	}
	if !c.fits(m, name, value) {
		return InternalFailure, nil
	}
	change(m, name, value)
	c.vm.effective.HeadersChanged(t)
	return OK, nil
}

func addHeader(c call) (Status, error) { return c.edit((*header.Map).Add) }

// replaceHeader sets: the header is made if it is missing, moved to the end if not, and left single.
func replaceHeader(c call) (Status, error) { return c.edit(replace) }

func replace(m *header.Map, name, value string) {
	m.Remove(name)
	m.Add(name, value)
}

func removeHeader(c call) (Status, error) {
	name, ok := c.name(1)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	t := MapType(c.a.U32(0))
	m := c.writeMap(t)
	if m == nil {
		return BadArgument, nil
	}
	m.Remove(name)
	c.vm.effective.HeadersChanged(t)
	return OK, nil
}

// setPairs replaces a whole map.
// DIVERGES(wasm-pairs): a list that can't be read, or is beyond the limits, is BadArgument; Envoy
// takes it for an empty one and so destroys the request.
func setPairs(c call) (Status, error) {
	wire, ok := c.text(1)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	t := MapType(c.a.U32(0))
	m := c.writeMap(t)
	if m == nil {
		return BadArgument, nil
	}
	if err := eachPair(wire, func(string, string) {}); err != nil {
		c.vm.warnOnce("set_header_map_pairs: " + err.Error())
		return BadArgument, nil //nolint:nilerr // the status tells the guest
	}
	// Not Reset: others may still hold strings of the map.
	m.RemoveIf(func(header.ID, string, string) bool { return true })
	_ = eachPair(wire, func(name, value string) { m.Add(lower(name), value) })
	c.vm.effective.HeadersChanged(t)
	return OK, nil
}
