package play

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"sidecar/internal/compat/corpus"
)

// DefaultAnswer is what an upstream says that has no script.
const DefaultAnswer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

// upstream is a listener whose connections follow the script of the case being played.
type upstream struct {
	listener *net.TCPListener
	done     sync.WaitGroup

	mu    sync.Mutex // guards below
	scene *scene
}

// scene is one case as one upstream sees it.
type scene struct {
	ctx      context.Context //nolint:containedctx // lives as long as one case
	signals  *signals
	scripts  [][]corpus.Step
	tls      *tls.Config // nil for plaintext
	http2    bool        // without ALPN
	expander corpus.Expander

	mu      sync.Mutex // guards below
	over    bool
	answers []string
	conns   []*connection
}

func newUpstream() (*upstream, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	u := &upstream{listener: l, scene: &scene{ctx: context.Background(), signals: newSignals()}}
	u.done.Go(u.accept)
	return u, nil
}

func (u *upstream) port() int {
	return u.listener.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener's
}

func (u *upstream) close() error {
	err := u.listener.Close()
	u.current().end()
	u.done.Wait()
	return err
}

func (u *upstream) current() *scene {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.scene
}

// begin makes new connections follow the script. Those of the case before are closed already.
func (u *upstream) begin(ctx context.Context, e corpus.Expander, script corpus.Upstream,
	sig *signals, secure *tls.Config,
) error {
	s := &scene{ctx: ctx, signals: sig, tls: secure, http2: script.HTTP2, expander: e}
	for _, a := range script.Answers {
		text, err := e.Expand(a.Bytes)
		if err != nil {
			return err
		}
		s.answers = append(s.answers, text)
	}
	for _, steps := range script.Connections {
		expanded := make([]corpus.Step, len(steps))
		for i, step := range steps {
			if step.Send != "" {
				step.Raw, step.Send = corpus.Text(step.Send), ""
			}
			var err error
			if step.Raw, err = e.Expand(step.Raw); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
			expanded[i] = step
		}
		s.scripts = append(s.scripts, expanded)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.scene = s
	return nil
}

// finish closes what is left of the case and returns what came.
func (u *upstream) finish() []Connection { return u.current().end() }

func (u *upstream) accept() {
	for {
		conn, err := u.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		s := u.current()
		c, ok := s.add(conn)
		if !ok {
			conn.Close()
			continue
		}
		u.done.Go(c.run)
	}
}

func (s *scene) add(conn net.Conn) (*connection, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil, false
	}
	c := newConnection(s, conn)
	if i := len(s.conns); i < len(s.scripts) {
		c.script = s.scripts[i]
	}
	s.conns = append(s.conns, c)
	return c, true
}

func (s *scene) nextAnswer() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) == 0 {
		return DefaultAnswer
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return a
}

func (s *scene) end() []Connection {
	s.mu.Lock()
	s.over = true
	conns := s.conns
	s.mu.Unlock()
	out := make([]Connection, 0, len(conns))
	for _, c := range conns {
		out = append(out, c.finish())
	}
	return out
}
