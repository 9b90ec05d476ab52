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
	done   chan struct{} // closed by close
	began  bool          // guarded by the manager's lock
}

func listen(a Address, c *Config) (*socket, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		return setOptions(raw, a.before)
	}}
	lc.SetMultipathTCP(false)
	if a.Network == "unix" {
		if a.Text == "" {
			return nil, errors.New("a pipe needs a path")
		}
		if err := removeStale(a.Text); err != nil {
			return nil, err
		}
	}
	ln, err := lc.Listen(context.Background(), a.Network, a.Text) //nolint:forbidigo // binding does not wait
	if err != nil {
		return nil, fmt.Errorf("cannot bind '%s': %w", a.Text, cause(err))
	}
	s := &socket{addr: a, ln: ln, done: make(chan struct{})}
	if err := errors.Join(s.chmod(a.Mode), s.tune(c.backlog)); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return s, nil
}

// chmod sets the mode of a unix socket's file.
func (s *socket) chmod(mode uint32) error {
	if s.addr.Network != "unix" || mode == 0 || s.addr.Text[0] == '@' {
		return nil
	}
	return os.Chmod(s.addr.Text, os.FileMode(mode))
}

// tune sets what a listening socket takes.
func (s *socket) tune(backlog int) error {
	sc, ok := s.ln.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if err := setOptions(raw, s.addr.after); err != nil || backlog == 0 {
		return err
	}
	var lerr error
	err = raw.Control(func(fd uintptr) { lerr = unix.Listen(int(fd), backlog) })
	return errors.Join(err, lerr)
}

func setOptions(raw syscall.RawConn, list []socketOption) error {
	var errs []error
	err := raw.Control(func(fd uintptr) {
		for _, o := range list {
			errs = append(errs, o.set(int(fd)))
		}
	})
	return errors.Join(append(errs, err)...)
}

// cause is the system's error below net's, whose text names the address once more.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if sys, ok := errors.AsType[*os.SyscallError](op.Err); ok {
			return sys.Err
		}
		return op.Err
	}
	return err
}

// removeStale removes the file of a socket that nobody listens on any more.
func removeStale(path string) error {
	if path[0] == '@' {
		return nil // abstract: no file
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return nil //nolint:nilerr // Listen will say what is wrong
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(context.Background(), "unix", path) //nolint:forbidigo // while binding, bounded
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use", path), c.Close())
	}
	return os.Remove(path)
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
			if !s.pause(delay) {
				return
			}
			delay = min(2*delay, maxPause)
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
			g.serve(nc)
		}, func(p *task.Panic) {
			g.m.env.Log.Error("connection ended by a panic", "error", p)
			_ = nc.Close()
		})
	}
}

// maxPause is how long accepting stops at most after an error.
const maxPause = 250 * time.Millisecond

// pause waits; false means that the socket was closed meanwhile.
func (s *socket) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.done:
		return false
	}
}

func (s *socket) close() {
	if s.closed.CompareAndSwap(false, true) {
		close(s.done)
		_ = s.ln.Close()
	}
}
