package buf

// Chain is a queue of bytes in pieces: what is appended is copied into memory of its own, or stays in
// the block that it is a part of. The zero value is empty and ready; an emptied chain gives its memory
// back. It has no lock.
type Chain struct {
	head, last *piece
	size       int
	// own is what Append and Tail write into, behind used. The chain holds it, and so does every piece
	// in it.
	own  *Block
	used int
}

// piece is a part of a block that a chain holds.
type piece struct {
	block      *Block
	start, end int
	next       *piece
}

//nolint:gochecknoglobals // free list
var pieces = Pool[piece]{New: func() *piece { return new(piece) }}

func (p *piece) bytes() []byte { return p.block.B[p.start:p.end] }

// Len returns the number of bytes held.
func (c *Chain) Len() int { return c.size }

// First returns the bytes of the first piece. They are valid until the next call that changes the
// chain.
func (c *Chain) First() []byte {
	if c.head == nil {
		return nil
	}
	return c.head.bytes()
}

// Peek copies the first bytes to p, as many as there are, and returns how many that was.
func (c *Chain) Peek(p []byte) (n int) {
	for x := c.head; x != nil && n < len(p); x = x.next {
		n += copy(p[n:], x.bytes())
	}
	return n
}

// Join moves everything to the end of b, into one piece.
func (c *Chain) Join(b *Buffer) {
	n := c.Len()
	if n > 0 {
		b.Extend(c.Peek(b.Tail(n)[:n]))
	}
	c.Reset()
}

// link appends a piece; the chain takes over the caller's hold of the block.
func (c *Chain) link(b *Block, start, end int) {
	p := pieces.Get()
	p.block, p.start, p.end = b, start, end
	c.attach(p)
}

func (c *Chain) attach(p *piece) {
	if c.last == nil {
		c.head = p
	} else {
		c.last.next = p
	}
	c.last = p
	c.size += p.end - p.start
}

// Append copies p to the end.
func (c *Chain) Append(p []byte) {
	for len(p) > 0 {
		if c.own == nil || c.used == len(c.own.B) {
			c.Tail(min(len(p), Bulk))
		}
		n := copy(c.own.B[c.used:], p)
		c.Extend(n)
		p = p[n:]
	}
}

// AppendString copies s to the end.
func (c *Chain) AppendString(s string) {
	if s != "" {
		copy(c.Tail(len(s)), s)
		c.Extend(len(s))
	}
}

// AppendShared appends p, which is a part of b if that is not nil, without copying it where that pays.
// Nobody may write to p any more.
func (c *Chain) AppendShared(b *Block, p []byte) {
	if b == nil || len(p) < MinShare {
		c.Append(p)
		return
	}
	start := b.offset(p)
	c.link(b.Share(), start, start+len(p))
}

// Tail returns free space of at least n bytes, in one piece; Extend makes what was written there part
// of the contents. An encoder appends into it in place.
func (c *Chain) Tail(n int) []byte {
	if c.own == nil || len(c.own.B)-c.used < n {
		if c.own != nil {
			n = max(n, min(2*len(c.own.B), Bulk))
			c.own.Put()
		}
		c.own, c.used = GetBlock(n), 0
	}
	return c.own.B[c.used:]
}

// Extend adds the first n bytes of the last Tail to the contents.
func (c *Chain) Extend(n int) {
	if n == 0 {
		return
	}
	if p := c.last; p != nil && p.block == c.own && p.end == c.used {
		p.end += n
		c.size += n
	} else {
		c.link(c.own.Share(), c.used, c.used+n)
	}
	c.used += n
}

// Move appends the first n bytes of o, which has as many, and drops them there. Large pieces are not
// copied.
func (c *Chain) Move(o *Chain, n int) {
	for n > 0 {
		p := o.head
		k := p.end - p.start
		switch {
		case k < MinShare && n >= k, n < MinShare:
			k = min(k, n)
			c.Append(p.bytes()[:k])
			o.Consume(k)
		case k <= n:
			if o.head = p.next; o.head == nil {
				o.last = nil
			}
			p.next = nil
			o.size -= k
			c.attach(p)
			if o.size == 0 {
				o.Reset()
			}
		default:
			k = n
			c.AppendShared(p.block, p.bytes()[:k])
			o.Consume(k)
		}
		n -= k
	}
}

// Consume drops the first n bytes; an emptied chain gives its memory back.
func (c *Chain) Consume(n int) {
	c.size -= n
	for n > 0 {
		p := c.head
		k := p.end - p.start
		if n < k {
			p.start += n
			break
		}
		n -= k
		if c.head = p.next; c.head == nil {
			c.last = nil
		}
		p.free()
	}
	if c.size == 0 {
		c.Reset()
	}
}

func (p *piece) free() {
	p.block.Put()
	*p = piece{}
	pieces.Put(p)
}

// Reset empties the chain and gives its memory back.
func (c *Chain) Reset() {
	for p := c.head; p != nil; {
		next := p.next
		p.free()
		p = next
	}
	if c.own != nil {
		c.own.Put()
	}
	*c = Chain{}
}

// Swap exchanges the contents of two chains.
func (c *Chain) Swap(o *Chain) { *c, *o = *o, *c }
