package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sidecar/internal/task"
)

// socket is one listening socket. It outlives the versions of its listener: each takes over from the
// one before by becoming the active generation.
type socket struct {
	addr   Address
	ln     net.Listener
	active atomic.Pointer[generation]
	uses   int // generations that want it open; guarded by the manager's lock
	closed atomic.Bool
	ready  chan struct{} // closed when accepting begins
	began  bool          // guarded by the manager's lock
}

func listen(a Address, c *Config) (*socket, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		var serr error
		err := raw.Control(func(fd uintptr) { serr = setOptions(int(fd), a, c) })
		return errors.Join(err, serr)
	}}
	lc.SetMultipathTCP(false)
	text := a.Text
	if a.Network == "unix" {
		if text == "" {
			return nil, errors.New("a pipe needs a path")
		}
		if text[0] != '@' {
			if err := removeStale(text); err != nil {
				return nil, err
			}
		}
	}
	ln, err := lc.Listen(context.Background(), a.Network, text)
	if err != nil {
		return nil, fmt.Errorf("cannot bind '%s': %w", a.Text, cause(err))
	}
	if a.Network == "unix" && a.Mode != 0 && text[0] != '@' {
		if err := os.Chmod(text, os.FileMode(a.Mode)); err != nil {
			return nil, errors.Join(err, ln.Close())
		}
	}
	return &socket{addr: a, ln: ln, ready: make(chan struct{})}, nil
}

// cause is the system's error below net's, whose text names the address once more.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		var sys *os.SyscallError
		if errors.As(op.Err, &sys) {
			return sys.Err
		}
		return op.Err
	}
	return err
}

// removeStale removes the file of a socket that nobody listens on any more.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return nil // Listen will say what is wrong
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use", path), c.Close())
	}
	return os.Remove(path)
}

func setOptions(fd int, a Address, c *Config) error {
	if a.Network == "unix" {
		return nil
	}
	var errs []error
	set := func(level, opt int) {
		if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil {
			errs = append(errs, os.NewSyscallError("setsockopt", err))
		}
	}
	if c.reusePort {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT)
	}
	v6 := a.IP.Addr().Is6()
	if c.transparent {
		set(unix.SOL_IP, unix.IP_TRANSPARENT)
		if v6 {
			set(unix.SOL_IPV6, unix.IPV6_TRANSPARENT)
		}
	}
	if c.freebind {
		set(unix.SOL_IP, unix.IP_FREEBIND)
	}
	return errors.Join(errs...)
}

// start begins to accept; it is called once the first generation is ready. wg counts the goroutines
// that it starts.
func (s *socket) start(wg *sync.WaitGroup) {
	wg.Add(1)
	task.Go("accept "+s.addr.Text, func() {
		defer wg.Done()
		s.accept(wg)
	}, nil)
}

// accept takes connections until the socket is closed. Each runs on a goroutine of its own.
func (s *socket) accept(wg *sync.WaitGroup) {
	delay := time.Millisecond
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			if s.closed.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors or memory: what is open goes on, new ones wait.
			time.Sleep(delay)
			delay = min(2*delay, time.Second)
			continue
		}
		delay = time.Millisecond
		g := s.active.Load()
		if g == nil {
			_ = nc.Close()
			continue
		}
		wg.Add(1)
		task.Go("connection", func() {
			defer wg.Done()
			g.serve(nc, nil)
		}, func(p *task.Panic) {
			g.m.env.Log.Error("connection ended by a panic", "error", p)
			_ = nc.Close()
		})
	}
}

func (s *socket) close() {
	if s.closed.CompareAndSwap(false, true) {
		_ = s.ln.Close()
	}
}
