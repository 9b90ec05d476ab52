package mutate

import (
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// scratch holds what is made before the first header is changed.
type scratch struct {
	bytes []byte
	spans []span
}

// span is the value of one addition within scratch.bytes; skip says that nothing is to be added.
type span struct {
	from, to int
	skip     bool
}

// scratchKeep bounds what a recycled scratch keeps.
const scratchKeep = 16 << 10

//nolint:gochecknoglobals // free list
var scratches = buf.Pool[scratch]{New: func() *scratch { return new(scratch) }}

// Apply changes m. Values are made from info, which may be nil where all are constant.
func (h *Headers) Apply(m *header.Map, info *stream.Info) {
	if h == nil {
		return
	}
	for _, name := range h.remove {
		m.Remove(name)
	}
	if len(h.add) == 0 {
		return
	}
	sc := scratches.Get()
	h.evaluate(sc, m, info)
	h.put(sc, m, true)
	h.put(sc, m, false)
	if cap(sc.bytes) > scratchKeep {
		sc.bytes = nil
	}
	sc.bytes, sc.spans = sc.bytes[:0], sc.spans[:0]
	scratches.Put(sc)
}

// evaluate makes all values, and looks which headers are there, before any is changed.
func (h *Headers) evaluate(sc *scratch, m *header.Map, info *stream.Info) {
	for i := range h.add {
		a := &h.add[i]
		s := span{from: len(sc.bytes)}
		empty := a.constant == ""
		if a.format != nil {
			sc.bytes = a.format.Append(sc.bytes, info)
			empty = len(sc.bytes) == s.from
		}
		s.to = len(sc.bytes)
		switch {
		case empty && !a.keepEmpty:
			s.skip = true
		case a.action == addIfAbsent:
			s.skip = a.present(m)
		case a.action == overwriteIfExists:
			s.skip = !a.present(m)
		}
		sc.spans = append(sc.spans, s)
	}
}

func (a *addition) present(m *header.Map) bool {
	if a.id != header.None {
		return m.Has(a.id)
	}
	_, ok := m.Get(a.name)
	return ok
}

// put makes the changes that overwrite, or those that add. An overwritten header moves to the end.
func (h *Headers) put(sc *scratch, m *header.Map, overwrite bool) {
	for i := range h.add {
		a, s := &h.add[i], sc.spans[i]
		if s.skip || overwrite != (a.action == overwriteOrAdd || a.action == overwriteIfExists) {
			continue
		}
		if overwrite {
			m.Remove(a.name)
		}
		if a.format == nil {
			m.AddStatic(a.name, a.constant)
		} else {
			m.AddBytes(a.name, sc.bytes[s.from:s.to])
		}
	}
}
