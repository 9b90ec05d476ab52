package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/internal/task"
)

// Options are how a cluster's connections are opened. They never change and are shared between
// clusters that were configured alike.
type Options struct {
	// Timeout bounds a connection attempt.
	Timeout time.Duration
	// Sources are the addresses to connect from; of these the first of the host's family is taken. An
	// unspecified address means the kernel's choice.
	Sources []netip.AddrPort
	// Freebind lets Sources be addresses that the machine doesn't have.
	Freebind bool
	// KeepAlive, if Enable is set, makes the kernel probe idle connections.
	KeepAlive net.KeepAliveConfig
}

// Error is a failed attempt.
type Error struct {
	// Reason is one of the connection failures or ReasonConnectionTimeout.
	Reason stream.Reason
	// Transport is Envoy's text, as logs show it.
	Transport string
	// Bind says that the source address could not be bound (bind_errors).
	Bind bool
	Err  error
}

// Error describes the failure.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// attemptDelay is how long an address is tried before the next one joins the race.
//
// Envoy: 300 ms (HappyEyeballsConnectionProvider).
const attemptDelay = 300 * time.Millisecond

// Dial connects to a host, and blocks until that is done, has failed, or ctx has ended.
func (o *Options) Dial(ctx context.Context, h *host.Host) (net.Conn, *Error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	at := h.Addresses()
	if len(at.More) == 0 {
		return o.dialOne(ctx, at.Addr)
	}
	return o.race(ctx, append([]stream.Addr{at.Addr}, at.More...))
}

func (o *Options) dialOne(ctx context.Context, addr stream.Addr) (net.Conn, *Error) {
	d := net.Dialer{KeepAlive: -1}
	if o.KeepAlive.Enable {
		d.KeepAlive, d.KeepAliveConfig = 0, o.KeepAlive
	}
	network, to := "tcp", addr.String()
	if addr.Pipe != "" {
		network = "unix"
	} else if src, ok := o.source(addr.IP.Addr()); ok {
		d.LocalAddr = net.TCPAddrFromAddrPort(src)
		d.Control = o.control
	}
	nc, err := d.DialContext(ctx, network, to)
	if err != nil {
		return nil, explain(err, addr, d.LocalAddr)
	}
	return nc, nil
}

func (o *Options) source(to netip.Addr) (netip.AddrPort, bool) {
	for _, s := range o.Sources {
		if s.Addr().Is4() == to.Is4() {
			return s, !s.Addr().IsUnspecified() || s.Port() != 0
		}
	}
	return netip.AddrPort{}, false
}

func (o *Options) control(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = setSource(int(fd), o.Freebind) }); cerr != nil {
		return cerr
	}
	return err
}

// explain puts a failure into Envoy's words (ConnectionImpl, ClientConnectionImpl).
func explain(err error, to stream.Addr, from net.Addr) *Error {
	e := &Error{Reason: stream.ReasonRemoteConnectionFailure, Err: err}
	if errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) && !errors.Is(err, syscall.ETIMEDOUT) {
		// Envoy gives no transport failure text when its own timer ends the attempt.
		e.Reason = stream.ReasonConnectionTimeout
		return e
	}
	if errors.Is(err, context.Canceled) {
		e.Reason = stream.ReasonLocalConnectionFailure
		return e
	}
	var call *os.SyscallError
	errno := syscall.Errno(0)
	if !errors.As(err, &call) || !errors.As(err, &errno) {
		e.Transport = "immediate_connect_error:_" + token(err.Error())
		return e
	}
	text := token(errno.Error())
	switch {
	case call.Syscall == "bind":
		e.Reason, e.Bind = stream.ReasonLocalConnectionFailure, true
		e.Transport = "failed_to_bind_to_" + from.String() + ":_" + text
	case to.Pipe == "" && isDelayed(errno):
		e.Transport = "delayed_connect_error:_" + text
	default:
		e.Transport = "immediate_connect_error:_" + text + "|remote_address:" + to.String()
	}
	return e
}

// isDelayed tells the failures that a TCP peer or a router answers from those that connect(2) returns
// at once: the dialer has waited for either.
func isDelayed(errno syscall.Errno) bool {
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ETIMEDOUT, syscall.EHOSTUNREACH:
		return true
	}
	return false
}

// token is the C library's text of an error, with underscores.
func token(s string) string {
	if s == "" {
		return s
	}
	return strings.ReplaceAll(strings.ToUpper(s[:1])+s[1:], " ", "_")
}

// race tries addresses one after the other, each joining when the one before has failed or has had
// its time; the first connection wins and the others are closed.
func (o *Options) race(ctx context.Context, addrs []stream.Addr) (net.Conn, *Error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		nc  net.Conn
		err *Error
	}
	results := make(chan result)
	running, next := 0, 0
	start := func() {
		addr := addrs[next]
		next, running = next+1, running+1
		task.Go("dial", func() {
			nc, err := o.dialOne(ctx, addr)
			select {
			case results <- result{nc, err}:
			case <-ctx.Done():
				if nc != nil {
					_ = nc.Close()
				}
			}
		}, nil)
	}
	start()
	timer := time.NewTimer(attemptDelay)
	defer timer.Stop()
	for {
		select {
		case r := <-results:
			if running--; r.err == nil {
				return r.nc, nil
			}
			if next < len(addrs) {
				start()
				timer.Reset(attemptDelay)
			} else if running == 0 {
				return nil, r.err
			}
		case <-timer.C:
			if next < len(addrs) {
				start()
				timer.Reset(attemptDelay)
			}
		case <-ctx.Done():
			return nil, explain(ctx.Err(), addrs[0], nil)
		}
	}
}
