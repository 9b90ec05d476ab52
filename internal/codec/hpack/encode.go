package hpack

import (
	"hash/maphash"

	"golang.org/x/net/http2/hpack"

	"sidecar/api/header"
)

// Encoder encodes the blocks of one direction of a connection, in the order in which they are sent.
// Whoever uses it holds the connection's write lock.
type Encoder struct {
	t table
	// slots maps hashes of fields and of names to the number of the entry's insertion plus one, in
	// pairs. It forgets: a field that is not found enters the table again.
	slots *[slotCount]uint32
	least uint32 // of the sizes since the last update was sent
	dirty bool   // an update is to be sent
	plain bool
}

const (
	slotCount = 256
	slotMask  = slotCount - 1
)

// seed keeps a peer from choosing fields that meet in one slot.
//
//nolint:gochecknoglobals // never changes
var seed = maphash.MakeSeed()

// Init readies the encoder of a new connection.
func (e *Encoder) Init() { *e = Encoder{t: table{max: defaultTable}} }

// DisableHuffman sends strings as they are (disable_huffman_encoding).
func (e *Encoder) DisableHuffman() { e.plain = true }

// SetPeerTableSize takes the peer's SETTINGS_HEADER_TABLE_SIZE. The next block begins with an update
// if that changes ours.
func (e *Encoder) SetPeerTableSize(n uint32) {
	n = min(n, defaultTable)
	if !e.dirty {
		if n == e.t.max {
			return
		}
		e.least = n
	}
	e.least = min(e.least, n)
	e.dirty = true
	e.t.resize(n)
	if e.t.count == 0 {
		e.slots = nil
	}
}

// AppendMap appends a block with all fields of m.
func (e *Encoder) AppendMap(dst []byte, m *header.Map) []byte {
	for i := range m.Len() {
		name, value := m.At(i)
		dst = e.Append(dst, m.IDAt(i), name, value)
	}
	return dst
}

// Append appends one field, after the pending updates of the table's size if it is the first since.
// name is lower-case; id must be header.Lookup(name).
func (e *Encoder) Append(dst []byte, id header.ID, name, value string) []byte {
	if e.dirty {
		dst = e.appendUpdates(dst)
	}
	var k known
	var nameHash uint32
	if id != header.None {
		k = knownFields.ids[id]
		if i := matchStatic(k.index, name, value); i != 0 {
			return append(dst, 0x80|i)
		}
		nameHash = uint32(id) * 0x9e3779b1
	} else {
		k = knownFields.names[name]
		nameHash = uint32(maphash.String(seed, name))
	}
	if k.use == useCookie {
		k.use = useTable
		if len(value) < shortCookie {
			k.use = useSecret
		}
	}
	// A large entry pushes out more than it saves; nghttp2's bound.
	if k.use != useTable || uint32(len(name)+len(value)+entryOverhead) > e.t.max/4*3 {
		k.use = max(k.use, useOnce)
		return e.appendLiteral(dst, k, id, nameHash, name, value)
	}
	h := nameHash ^ uint32(maphash.String(seed, value))
	if i := e.find(h, id, name, value, true); i != 0 {
		return appendInt(dst, 0x80, 7, uint32(staticLen)+i)
	}
	dst = e.appendLiteral(dst, k, id, nameHash, name, value)
	if insert(&e.t, id, name, value, h) {
		e.note(h)
		if k.index == 0 {
			e.note(nameHash)
		}
	}
	return dst
}

func (e *Encoder) appendUpdates(dst []byte) []byte {
	if e.least < e.t.max {
		dst = appendInt(dst, 0x20, 5, e.least)
	}
	e.dirty = false
	return appendInt(dst, 0x20, 5, e.t.max)
}

// matchStatic returns the index of the static entry that is this field; first is the first one of its
// name, of which only pseudo-headers have several.
func matchStatic(first uint8, name, value string) uint8 {
	if first == 0 {
		return 0
	}
	if name[0] != ':' {
		if staticPairs[first].value == value {
			return first
		}
		return 0
	}
	for i := int(first); staticPairs[i].name == name; i++ {
		if staticPairs[i].value == value {
			return uint8(i)
		}
	}
	return 0
}

func (e *Encoder) appendLiteral(
	dst []byte, k known, id header.ID, nameHash uint32, name, value string,
) []byte {
	flags, prefix := byte(0), uint(4)
	switch k.use {
	case useTable:
		flags, prefix = 0x40, 6
	case useSecret:
		flags = 0x10
	case useOnce, useCookie:
	}
	i := uint32(k.index)
	if i == 0 {
		if i = e.find(nameHash, id, name, "", false); i != 0 {
			i += uint32(staticLen)
		}
	}
	dst = appendInt(dst, flags, prefix, i)
	if i == 0 {
		dst = e.appendString(dst, name)
	}
	return e.appendString(dst, value)
}

// find returns the dynamic index of an entry with this name and, if whole, this value; 0 if none is
// known.
func (e *Encoder) find(h uint32, id header.ID, name, value string, whole bool) uint32 {
	if e.slots == nil {
		return 0
	}
	for i := range uint32(2) {
		// Zero stands for an empty slot: an entry whose number comes round to it is not found again.
		n := e.slots[h&slotMask^i]
		age := e.t.inserted - n + 1 // the newest's is 1
		if n == 0 {
			continue
		}
		f := e.t.get(age)
		if f == nil || f.id != id || whole && f.hash != h {
			continue
		}
		fn, fv := e.t.strings(f)
		if (id != header.None || string(fn) == name) && (!whole || string(fv) == value) {
			return age
		}
	}
	return 0
}

// note files the newest entry under a hash, in the older one of its two places.
func (e *Encoder) note(h uint32) {
	if e.slots == nil {
		e.slots = new([slotCount]uint32)
	}
	a, b := &e.slots[h&slotMask], &e.slots[h&slotMask^1]
	if e.t.inserted-*b > e.t.inserted-*a || *b == 0 && *a != 0 {
		a = b
	}
	*a = e.t.inserted
}

func (e *Encoder) appendString(dst []byte, s string) []byte {
	if !e.plain {
		if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
			return hpack.AppendHuffmanString(appendInt(dst, 0x80, 7, uint32(n)), s)
		}
	}
	return append(appendInt(dst, 0, 7, uint32(len(s))), s...)
}

func appendInt(dst []byte, flags byte, prefix uint, n uint32) []byte {
	full := uint32(1)<<prefix - 1
	if n < full {
		return append(dst, flags|byte(n))
	}
	dst = append(dst, flags|byte(full))
	for n -= full; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}
