package wire

import (
	"errors"
	"io"

	"sidecar/internal/buf"
)

// ReadTap sees what was read before the reader does, on the reader's goroutine, which it may keep
// waiting. It may change the data, and keep some of it by taking it out; end says that nothing
// follows. It is called no more once it returns false.
type ReadTap interface {
	OnRead(data *buf.Buffer, end bool) (again bool)
}

// WriteTap sees what is about to be sent, on the goroutine that sends it, in order: it must not block.
// It may change the data, and keep some of it by taking it out. It is called no more once it returns
// false. Reading goes on meanwhile on another goroutine.
type WriteTap interface {
	OnWrite(data *buf.Buffer) (again bool)
}

// taps are what is between a connection and its user.
type taps struct {
	// Owned by the reader.
	reads []ReadTap
	in    buf.Buffer // what has passed the taps
	err   error      // what the source has ended with

	// Owned by the writer.
	writes []WriteTap
	out    buf.Buffer
}

// Tap puts taps between the connection and its user: what is read passes the first one first, what is
// written the last one first. It is called once, before the connection is used and after Secure.
func (c *Conn) Tap(reads []ReadTap, writes []WriteTap) {
	c.taps = &taps{reads: reads, writes: writes}
	c.tapped.Store(int32(len(reads) + len(writes)))
}

// Tapped tells whether a tap still looks at the connection.
func (c *Conn) Tapped() bool { return c.tapped.Load() > 0 }

// readTapped is Read with taps.
func (c *Conn) readTapped(size int, want func() bool) (*buf.Block, int, error) {
	x := c.taps
	for {
		if x.in.Len() > 0 {
			if !want() {
				return nil, 0, nil
			}
			b := buf.GetBlock(min(x.in.Len(), max(size, buf.Read)))
			n := copy(b.B, x.in.Bytes())
			x.in.Consume(n)
			return b, n, nil
		}
		if x.err != nil {
			return nil, 0, x.err
		}
		b, n, err := c.readPlain(size, want)
		if len(x.reads) == 0 || b == nil && err == nil {
			return b, n, err
		}
		if b != nil {
			x.in.Append(b.B[:n])
			b.Put()
		}
		x.err = err
		if end := errors.Is(err, io.EOF); b != nil || end {
			c.passRead(end)
		}
	}
}

func (c *Conn) passRead(end bool) {
	x := c.taps
	for i := 0; i < len(x.reads); i++ {
		if !x.reads[i].OnRead(&x.in, end) {
			x.reads = append(x.reads[:i:i], x.reads[i+1:]...)
			c.tapped.Add(-1)
			i--
		}
		if x.in.Len() == 0 && !end {
			return
		}
	}
}

// passWrite shows the taps what the writer has taken. The caller is the writer.
func (c *Conn) passWrite() {
	x := c.taps
	if x == nil || len(x.writes) == 0 {
		return
	}
	for p := c.chunk.First(); len(p) > 0; p = c.chunk.First() {
		x.out.Append(p)
		c.chunk.Consume(len(p))
	}
	for i := len(x.writes) - 1; i >= 0 && x.out.Len() > 0; i-- {
		if !x.writes[i].OnWrite(&x.out) {
			x.writes = append(x.writes[:i:i], x.writes[i+1:]...)
			c.tapped.Add(-1)
		}
	}
	c.chunk.Append(x.out.Bytes())
	x.out.Reset()
}
