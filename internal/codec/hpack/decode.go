package hpack

import "sidecar/api/header"

// Sink takes the fields of a block.
type Sink interface {
	// Field is called for each field in its order. The slices hold during the call and must not be
	// written to. id is header.None for a name that is not well known; names are as they came, in
	// upper case too, which has no id. sensitive says that the field must never be indexed.
	//
	// An error ends decoding and leaves the tables out of step with the peer: only for connections
	// that end. A sink that refuses a message must take the rest of its fields.
	Field(name, value []byte, id header.ID, sensitive bool) error
}

// Error is why a block is not HPACK; the connection ends with COMPRESSION_ERROR.
type Error struct{ text string }

func (e *Error) Error() string { return e.text }

// What may be wrong with a block.
var (
	ErrTruncated = &Error{"hpack: block ends within a field"}
	ErrInteger   = &Error{"hpack: integer is too large"}
	ErrIndex     = &Error{"hpack: index is not in the tables"}
	ErrHuffman   = &Error{"hpack: string is not Huffman-coded"}
	ErrUpdate    = &Error{"hpack: table size update is not at the beginning of the block"}
	ErrTableSize = &Error{"hpack: table size is above the one that was allowed"}
	ErrNoUpdate  = &Error{"hpack: table size update is missing"}
)

// scratchKeep bounds what a decoder keeps between blocks.
const scratchKeep = 2 << 10

// Decoder decodes the blocks of one direction of a connection, in their order. It belongs to the
// reading goroutine.
type Decoder struct {
	t       table
	limit   uint32 // of size updates
	max     uint32 // SETTINGS_HEADER_TABLE_SIZE that we sent
	need    bool   // the next block must begin with an update
	scratch []byte // decoded strings of the field at hand
}

// Init readies the decoder of a new connection on which we send maxTable as
// SETTINGS_HEADER_TABLE_SIZE. Until Confirm the peer may still use the default size.
func (d *Decoder) Init(maxTable uint32) {
	*d = Decoder{limit: max(maxTable, defaultTable), max: maxTable}
	d.t.max = defaultTable
}

// Confirm says that the peer has acknowledged our SETTINGS. If it must make its table smaller, the
// next block has to begin with that (RFC 7541 section 4.2).
func (d *Decoder) Confirm() {
	d.limit = d.max
	d.need = d.t.max > d.limit
}

// Decode decodes a whole block: a HEADERS frame's fragment with those of its CONTINUATIONs. Errors are
// an *Error or the sink's.
func (d *Decoder) Decode(block []byte, s Sink) error {
	b, err := d.updates(block)
	for len(b) > 0 && err == nil {
		c := b[0]
		switch {
		case c&0x80 != 0:
			b, err = d.indexed(b, s)
		case c&0x40 != 0:
			b, err = d.literal(b, 6, true, false, s)
		case c&0x20 != 0:
			err = ErrUpdate
		default:
			b, err = d.literal(b, 4, false, c&0x10 != 0, s)
		}
	}
	if cap(d.scratch) > scratchKeep {
		d.scratch = nil
	}
	return err
}

// updates takes the table size updates off the beginning of a block: at most two, the least and the
// last of those that the encoder was told (RFC 7541 section 4.2).
func (d *Decoder) updates(b []byte) ([]byte, error) {
	for range 2 {
		if len(b) == 0 || b[0]&0xe0 != 0x20 {
			break
		}
		n, rest, err := readInt(b, 5)
		if err != nil {
			return nil, err
		}
		if n > d.limit {
			return nil, ErrTableSize
		}
		d.t.resize(n)
		d.need = false
		b = rest
	}
	if d.need && len(b) > 0 {
		return nil, ErrNoUpdate
	}
	return b, nil
}

func (d *Decoder) indexed(b []byte, s Sink) ([]byte, error) {
	i, b, err := readInt(b, 7)
	if err != nil {
		return nil, err
	}
	if i == 0 {
		return nil, ErrIndex
	}
	if i <= uint32(staticLen) {
		e := &staticEntries[i]
		return b, s.Field(e.name, e.value, e.id, false)
	}
	e := d.t.get(i - uint32(staticLen))
	if e == nil {
		return nil, ErrIndex
	}
	name, value := d.t.strings(e)
	return b, s.Field(name, value, e.id, false)
}

func (d *Decoder) literal(b []byte, prefix uint, keep, sensitive bool, s Sink) ([]byte, error) {
	d.scratch = d.scratch[:0]
	i, b, err := readInt(b, prefix)
	if err != nil {
		return nil, err
	}
	var name, value []byte
	var id header.ID
	switch {
	case i == 0:
		if name, b, err = d.string(b); err != nil {
			return nil, err
		}
		id = header.Lookup(name)
	case i <= uint32(staticLen):
		name, id = staticEntries[i].name, staticEntries[i].id
	default:
		e := d.t.get(i - uint32(staticLen))
		if e == nil {
			return nil, ErrIndex
		}
		// A copy: making room for the new entry may move or evict the one that has the name.
		name, _ = d.t.strings(e)
		d.scratch = append(d.scratch, name...)
		name, id = d.scratch[:len(name):len(name)], e.id
	}
	if value, b, err = d.string(b); err != nil {
		return nil, err
	}
	if keep {
		insert(&d.t, id, name, value, 0)
	}
	return b, s.Field(name, value, id, sensitive)
}

// string reads a string literal, of b or, decoded, of the scratch buffer.
func (d *Decoder) string(b []byte) (s, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, ErrTruncated
	}
	coded := b[0]&0x80 != 0
	n, b, err := readInt(b, 7)
	if err != nil {
		return nil, nil, err
	}
	if uint64(n) > uint64(len(b)) {
		return nil, nil, ErrTruncated
	}
	s, rest = b[:n:n], b[n:]
	if !coded {
		return s, rest, nil
	}
	from := len(d.scratch)
	var ok bool
	if d.scratch, ok = appendDecoded(d.scratch, s); !ok {
		return nil, nil, ErrHuffman
	}
	return d.scratch[from:len(d.scratch):len(d.scratch)], rest, nil
}

// readInt reads an integer with a prefix (RFC 7541 section 5.1); b is not empty.
func readInt(b []byte, prefix uint) (n uint32, rest []byte, err error) {
	full := uint32(1)<<prefix - 1
	n = uint32(b[0]) & full
	b = b[1:]
	if n < full {
		return n, b, nil
	}
	// Four more bytes hold every length and index that a block can have.
	for shift := 0; ; shift += 7 {
		if len(b) == 0 {
			return 0, nil, ErrTruncated
		}
		if shift > 21 {
			return 0, nil, ErrInteger
		}
		c := b[0]
		b = b[1:]
		n += uint32(c&0x7f) << shift
		if c < 0x80 {
			return n, b, nil
		}
	}
}
