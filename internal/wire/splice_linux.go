package wire

import (
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sidecar/internal/buf"
)

// pipe is a kernel pipe that bulk data passes through without coming to user space.
type pipe struct{ r, w int }

// pipeSize is how much of a bulk transfer is in flight between the sockets; the kernel may give less.
const pipeSize = 256 << 10

//nolint:gochecknoglobals // free list; each holds two file descriptors
var pipes = newPipes()

type pipePool struct {
	free chan *pipe
	live atomic.Int32
}

// keptPipes bounds the file descriptors that idle pipes hold, maxPipes those of all pipes: beyond it
// transfers go through user space.
const (
	keptPipes = 32
	maxPipes  = 512
)

func newPipes() *pipePool { return &pipePool{free: make(chan *pipe, keptPipes)} }

func (p *pipePool) get() (*pipe, error) {
	select {
	case x := <-p.free:
		return x, nil
	default:
	}
	if p.live.Add(1) > maxPipes {
		p.live.Add(-1)
		return nil, ErrNoSplice
	}
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		p.live.Add(-1)
		return nil, ErrNoSplice
	}
	// The default of 64 KB is fine where the limit on pipe memory does not allow more.
	_, _ = unix.FcntlInt(uintptr(fd[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{r: fd[0], w: fd[1]}, nil
}

// put keeps an empty pipe for the next transfer.
func (p *pipePool) put(x *pipe) {
	select {
	case p.free <- x:
	default:
		p.drop(x)
	}
}

// drop closes a pipe, which may have something in it.
func (p *pipePool) drop(x *pipe) {
	x.close()
	p.live.Add(-1)
}

func (x *pipe) close() {
	_ = unix.Close(x.r)
	_ = unix.Close(x.w)
}

// smallMoves is how many short moves in a row end a splice: small messages are cheaper through user
// space, with two system calls instead of four.
const (
	smallMoves = 4
	smallMove  = 16 << 10
)

// ErrNoSplice says that the kernel can't splice these two; nothing was moved.
var ErrNoSplice = errors.New("splice is not supported here")

// SpliceTo moves what the peer sends straight to dst, until the end of the peer's data (io.EOF), an
// error, or until it comes in small pieces again (nil). Only the reader may call it, with nothing
// preloaded, and only while nothing waits in dst's output and nobody else writes to it. moved is told
// of each piece that has reached dst's kernel. A transfer that pauses holds no pipe.
func (c *Conn) SpliceTo(dst *Conn, moved func(n int)) error {
	if c.Tapped() || dst.Tapped() {
		return ErrNoSplice
	}
	if c.Secured() || dst.Secured() {
		return ErrNoSplice
	}
	if c.early.Len() > 0 || dst.Pending() > 0 {
		return nil
	}
	for small := 0; small < smallMoves; {
		p, n, err := c.spliceIn()
		if n > 0 {
			if werr := dst.spliceOut(p, n, moved); werr != nil {
				pipes.drop(p)
				return werr
			}
			if n < smallMove {
				small++
			} else {
				small = 0
			}
		}
		if p != nil {
			pipes.put(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// spliceIn waits for the peer's data and takes it into a pipe, which is got at the last moment: a
// reader that is parked has none.
func (c *Conn) spliceIn() (p *pipe, moved int, err error) {
	var n int64
	var serr error
	err = c.raw.Read(func(fd uintptr) bool {
		if p, serr = pipes.get(); serr != nil {
			return true
		}
		for {
			n, serr = unix.Splice(int(fd), nil, p.w, nil, pipeSize, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			switch {
			case errors.Is(serr, unix.EINTR):
				continue
			case errors.Is(serr, unix.EAGAIN):
				pipes.put(p)
				p = nil
				return false
			case errors.Is(serr, unix.EINVAL):
				serr = ErrNoSplice
			case serr == nil && n == 0:
				serr = io.EOF
			}
			return true
		}
	})
	if err == nil {
		err = serr
	}
	if n > 0 {
		c.countRx(int(n))
	}
	return p, int(max(n, 0)), err
}

func (c *Conn) spliceOut(p *pipe, left int, moved func(int)) error {
	var serr error
	err := c.raw.Write(func(fd uintptr) bool {
		for left > 0 {
			n, e := unix.Splice(p.r, nil, int(fd), nil, left, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			switch {
			case n > 0:
				left -= int(n)
				moved(int(n))
				c.countTx(int(n))
			case e == unix.EINTR:
			case e == unix.EAGAIN:
				return false
			default:
				serr = e
				if serr == nil {
					serr = io.ErrShortWrite
				}
				return true
			}
		}
		return true
	})
	return errors.Join(err, serr)
}

// Bulk is the size of the blocks that fill up before a transfer counts as bulk.
const Bulk = buf.Bulk
