package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/api/stats"
	"sidecar/api/stream"
)

// Verdict is what a listener filter says of what it has seen.
type Verdict uint8

// The verdicts.
const (
	More   Verdict = iota // wants to see more bytes
	Next                  // has seen enough: the next filter's turn
	Reject                // the connection is closed
)

// ListenerFilter looks at a connection before its filter chain is known. It is shared by all
// connections and keeps nothing of them but what it writes to their ConnInfo.
type ListenerFilter interface {
	// Limit is how many bytes of the client's it must see at most; 0 if none.
	Limit() int
	// OnAccept is called first. done skips Inspect.
	OnAccept(nc net.Conn, info *stream.ConnInfo) (done bool, err error)
	// Inspect is shown what the client has sent so far; the bytes stay in the socket, except that the
	// first consume of them are taken out with the verdict Next. end says that no more will come.
	Inspect(p []byte, end bool, info *stream.ConnInfo) (consume int, v Verdict)
}

// ListenerFilterEntry is a listener filter that the binary knows.
type ListenerFilterEntry struct {
	Compile func(a *anypb.Any, scope *stats.Scope) (ListenerFilter, error)
}

var errRejected = errors.New("rejected by a listener filter")

// inspect runs the listener filters. It returns an error if the connection is to be closed.
func (g *generation) inspect(nc net.Conn, info *stream.ConnInfo) error {
	if len(g.cfg.filters) == 0 {
		return nil
	}
	g.stats.PreCxActive.Inc()
	defer g.stats.PreCxActive.Dec()
	if d := g.cfg.filtersTimeout; d > 0 {
		if err := nc.SetReadDeadline(time.Now().Add(d)); err != nil {
			return err
		}
		defer nc.SetReadDeadline(time.Time{}) //nolint:errcheck // a closed socket shows itself
	}
	for _, f := range g.cfg.filters {
		done, err := f.OnAccept(nc, info)
		if err != nil {
			g.stats.FilterError.Inc()
			return err
		}
		if done || f.Limit() == 0 {
			continue
		}
		err = show(nc, f, info)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			g.stats.PreCxTimeout.Inc()
			if !g.cfg.continueOnTO {
				return err
			}
			return nil
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

// show peeks at the socket until the filter has seen enough.
func show(nc net.Conn, f ListenerFilter, info *stream.ConnInfo) error {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return errors.New("no socket to look into")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	p := make([]byte, f.Limit())
	seen := -1
	var verdict error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, rerr := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			switch {
			case rerr == syscall.EINTR:
				continue
			case rerr == syscall.EAGAIN:
				return false
			case rerr != nil:
				verdict = rerr
				return true
			case n == seen && n < len(p):
				// Nothing new: the socket says readable for what was seen already, or for the end.
				if n > 0 && !ended(int(fd)) {
					return false
				}
				verdict = finish(int(fd), f, p[:n], info)
				return true
			}
			seen = n
			if n == 0 {
				verdict = finish(int(fd), f, nil, info)
				return true
			}
			consume, v := f.Inspect(p[:n], n == len(p), info)
			switch v {
			case Next:
				verdict = take(int(fd), p[:consume])
				return true
			case Reject:
				verdict = errRejected
				return true
			case More:
				if n == len(p) {
					verdict = errRejected
					return true
				}
				return false
			}
		}
	})
	if err != nil {
		return err
	}
	return verdict
}

// finish shows the filter the last it will see.
func finish(fd int, f ListenerFilter, p []byte, info *stream.ConnInfo) error {
	if len(p) == 0 {
		return io.EOF
	}
	consume, v := f.Inspect(p, true, info)
	if v == Reject || v == More {
		return errRejected
	}
	return take(fd, p[:consume])
}

// ended tells whether the peer has sent its FIN.
func ended(fd int) bool {
	info, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_INFO)
	// The first byte of tcp_info is the state; 8 is CLOSE_WAIT.
	return err == nil && info&0xff == 8
}

// take reads bytes that were peeked at out of the socket.
func take(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := syscall.Read(fd, p)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		p = p[n:]
	}
	return nil
}
