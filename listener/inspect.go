package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// listenerFilter is one listener filter as configured.
type listenerFilter struct {
	filter.ListenerFilter
	disabled predicate // nil: never
}

var errRejected = errors.New("rejected by a listener filter")

// inspect runs the listener filters. It returns an error if the connection is to be closed.
func (g *generation) inspect(nc net.Conn, info *stream.ConnInfo) error {
	if len(g.cfg.filters) == 0 {
		return nil
	}
	g.stats.PreCxActive.Inc()
	defer g.stats.PreCxActive.Dec()
	timed := false
	for _, f := range g.cfg.filters {
		if f.disabled != nil && f.disabled(info) {
			continue
		}
		if !f.OnAccept(nc, info) {
			continue
		}
		if d := g.cfg.filtersTimeout; d > 0 && !timed {
			timed = true
			if err := nc.SetReadDeadline(time.Now().Add(d)); err != nil {
				return err
			}
			defer nc.SetReadDeadline(time.Time{}) //nolint:errcheck // a closed socket shows itself
		}
		err := show(nc, f, info)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			g.stats.PreCxTimeout.Inc()
			if !g.cfg.continueOnTO {
				return err
			}
			return nil
		case errors.Is(err, errRejected):
			return err
		case errors.Is(err, io.EOF):
			g.stats.FilterRemoteClose.Inc()
			return err
		default:
			g.stats.FilterError.Inc()
			return err
		}
	}
	return nil
}

// look is the state of one filter's look at one socket.
type look struct {
	f      filter.ListenerFilter
	info   *stream.ConnInfo
	size   int // of the memory to peek into; grows with what the client has sent
	result error
}

// firstLook is how much is peeked at first: a request line, and most ClientHellos, fit.
const firstLook = buf.Small

// show peeks at the socket until the filter has seen enough. A client that has sent nothing, or waits
// in the middle, holds no memory for it: what it sent stays in the socket.
func show(nc net.Conn, f filter.ListenerFilter, info *stream.ConnInfo) error {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return errors.New("no socket to look into")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	l := &look{f: f, info: info, size: firstLook}
	if err := raw.Read(l.ready); err != nil {
		return err
	}
	return l.result
}

// ready is called when there may be something to read; false waits for more.
func (l *look) ready(fd uintptr) bool {
	b := buf.GetBlock(l.size)
	defer func() { b.Put() }()
	seen, ended := -1, false
	for {
		n, _, err := syscall.Recvfrom(int(fd), b.B, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return false
		case err != nil:
			l.result = err
			return true
		case n == 0 || (n == seen && ended):
			l.result = io.EOF
			return true
		}
		if n != seen {
			consume, v := l.f.Inspect(b.B[:n], l.info)
			if v != filter.More {
				l.decide(int(fd), b.B[:consume], v)
				return true
			}
		}
		if n == len(b.B) {
			if l.size >= filter.MaxInspect {
				l.result = errRejected
				return true
			}
			l.size = min(4*l.size, filter.MaxInspect)
			b.Put()
			b, seen = buf.GetBlock(l.size), -1
			continue
		}
		// The wake-up for the end may have come with that for the data: it is asked for before parking,
		// and once more whether anything came in between.
		if seen = n; !peerEnded(int(fd)) {
			return false
		}
		ended = true
	}
}

func (l *look) decide(fd int, consume []byte, v filter.Verdict) {
	if v == filter.Reject {
		l.result = errRejected
		return
	}
	l.result = take(fd, consume)
}

// peerEnded tells whether the peer has sent its FIN, or the connection is broken.
func peerEnded(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// take reads bytes that were peeked at out of the socket.
func take(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := syscall.Read(fd, p)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		p = p[n:]
	}
	return nil
}
