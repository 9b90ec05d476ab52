package admin

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"sidecar/internal/task"
)

// Server serves the admin endpoints on one listener.
type Server struct {
	// Set by New, never changed.
	options   Options
	endpoints map[string]*endpoint
	stats     *serverStats
	http      *http.Server
}

// New makes a server; it doesn't listen yet.
func New(o Options) *Server {
	s := &Server{options: o, stats: newStats(o.Stats)}
	s.endpoints = map[string]*endpoint{}
	for _, e := range s.table() {
		s.endpoints[e.path] = e
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:           s,
		Protocols:         &protocols,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ConnState:         s.stats.onConn,
		ErrorLog:          log.New(errorLog{o.Log}, "", 0),
	}
	return s
}

// errorLog passes net/http's own messages on.
type errorLog struct{ log *slog.Logger }

func (e errorLog) Write(b []byte) (int, error) {
	e.log.Debug("admin connection", "message", string(b))
	return len(b), nil
}

// Start serves on the listener, which the server closes in the end. It returns at once; failed is
// called if serving ends for another reason than Close.
func (s *Server) Start(l net.Listener, failed func(error)) {
	task.Go("admin", func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}, func(p *task.Panic) { failed(p) })
}

// Close stops listening, waits for requests under way until ctx ends, and then cuts them off.
func (s *Server) Close(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// Listen opens the server's socket: an address with a port, or the path of a unix socket, whose
// mode is set if not 0. A stale unix socket is replaced.
func Listen(ctx context.Context, address, pipe string, mode os.FileMode) (net.Listener, error) {
	var c net.ListenConfig
	if pipe == "" {
		return c.Listen(ctx, "tcp", address)
	}
	if err := removeStale(ctx, pipe); err != nil {
		return nil, err
	}
	l, err := c.Listen(ctx, "unix", pipe)
	if err != nil || mode == 0 || pipe[0] == '@' {
		return l, err
	}
	if err := os.Chmod(pipe, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes a socket file that nobody listens at.
func removeStale(ctx context.Context, pipe string) error {
	info, err := os.Stat(pipe)
	if pipe[0] == '@' || err != nil || info.Mode().Type() != os.ModeSocket {
		return nil //nolint:nilerr // listening reports what is wrong with the path
	}
	d := net.Dialer{Timeout: time.Second}
	if c, err := d.DialContext(ctx, "unix", pipe); err == nil {
		return c.Close() // in use: listening fails with a clear error
	}
	return os.Remove(pipe)
}

// WriteAddress writes where the server listens to a file (--admin-address-path), as a whole or not
// at all.
func WriteAddress(path string, l net.Listener) error {
	tmp, err := os.CreateTemp(dirOf(path), ".admin-address-*")
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(l.Addr().String())
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

func dirOf(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i+1]
		}
	}
	return "."
}
