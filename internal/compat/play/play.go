package play

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/wire"
)

// How a connection was at the end of a case.
const (
	EndOpen   = "open"
	EndClosed = "closed" // by the proxy
	EndHere   = "closed by the script"
)

// Client is what one client of a case got.
type Client struct {
	Responses []wire.Message `json:"responses,omitempty"`
	Data      string         `json:"data,omitempty"` // bytes outside of responses
	End       string         `json:"end,omitempty"`
	Failure   string         `json:"failure,omitempty"` // a step that could not be done
}

// Connection is what one connection brought to an upstream.
type Connection struct {
	Requests []wire.Message `json:"requests,omitempty"`
	Data     string         `json:"data,omitempty"`
	End      string         `json:"end,omitempty"`
}

// Result is all that the two ends saw of a case.
type Result struct {
	Clients   []Client                `json:"clients"`
	Upstreams map[string][]Connection `json:"upstreams,omitempty"`
}

// Stage holds the upstreams that a group of cases shares.
type Stage struct {
	upstreams map[string]*upstream
	expander  corpus.Expander
	folder    string // with certificates
}

// NewStage listens on a port of its own for every upstream. Until Close it owns goroutines.
func NewStage(names []string) (*Stage, error) {
	s := &Stage{upstreams: map[string]*upstream{}}
	for _, name := range names {
		u, err := newUpstream()
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.upstreams[name] = u
	}
	return s, nil
}

// SetExpander gives the table for the placeholders in scripts.
func (s *Stage) SetExpander(e corpus.Expander) { s.expander = e }

// Ports returns the port of each upstream.
func (s *Stage) Ports() map[string]int {
	ports := map[string]int{}
	for name, u := range s.upstreams {
		ports[name] = u.port()
	}
	return ports
}

// Close ends all upstreams and waits for their goroutines.
func (s *Stage) Close() error {
	errs := make([]error, 0, len(s.upstreams))
	for _, u := range s.upstreams {
		errs = append(errs, u.close())
	}
	return errors.Join(errs...)
}

// Play runs the scripts of c, its clients against address. When it returns every client connection
// is closed, and every connection to an upstream too.
func (s *Stage) Play(ctx context.Context, c *corpus.Case, address string) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	sig := newSignals()
	for name, u := range s.upstreams {
		script := c.Upstreams[name]
		secure, err := s.serverTLS(script.TLS)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", name, err)
		}
		if err := u.begin(ctx, s.expander, script, sig, secure); err != nil {
			return nil, fmt.Errorf("upstream %s: %w", name, err)
		}
	}
	config, err := s.clientTLS(c.TLS)
	if err != nil {
		return nil, err
	}
	out := &Result{Clients: make([]Client, len(c.Clients)), Upstreams: map[string][]Connection{}}
	var wg sync.WaitGroup
	for i, steps := range c.Clients {
		wg.Go(func() {
			p := &client{
				ctx: ctx, expander: s.expander, signals: sig, tls: config,
				within: time.Duration(c.Within), settle: time.Duration(c.Settle),
			}
			out.Clients[i] = p.run(address, steps)
		})
	}
	wg.Wait()
	for name, u := range s.upstreams {
		if seen := u.finish(); len(seen) > 0 {
			out.Upstreams[name] = seen
		}
	}
	return out, nil
}

// closeMark is how the end of reading shows up in a record: what is chance (FIN or RST, which of two
// errors the kernel reports) is dropped.
func closeMark(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed"
	}
	return err.Error()
}

func closeConn(conn net.Conn, reset bool) error {
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
	}
	return conn.Close()
}

func halfClose(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return errors.New("not a TCP connection")
	}
	return tcp.CloseWrite()
}
