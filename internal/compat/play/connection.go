package play

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/wire"
	"sidecar/internal/task"
)

// connection is one connection that a proxy opened to an upstream.
type connection struct {
	scene  *scene
	conn   net.Conn
	reader *bufio.Reader
	h2     *http2Peer // nil for HTTP/1
	script []corpus.Step
	ended  chan struct{} // closed when run is over

	mu      sync.Mutex // guards below
	waiting bool       // between requests, or held: the proxy's move
	held    bool       // a script waits for the proxy to close
	out     Connection
}

// How long a proxy may take to close a connection whose request it gave up.
const heldFor = 700 * time.Millisecond

func newConnection(s *scene, conn net.Conn) *connection {
	return &connection{scene: s, conn: conn, reader: bufio.NewReader(conn), ended: make(chan struct{})}
}

func (c *connection) run() {
	defer close(c.ended)
	defer func() { c.conn.Close() }()
	err := c.secure()
	if err == nil {
		err = c.play()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.End != "" {
		return
	}
	c.out.End = EndClosed
	switch {
	case errors.Is(err, errEnd):
		c.out.End = EndHere
	case closeMark(err) != "closed":
		c.out.End = err.Error()
	}
}

// play runs the script, then answers requests until the proxy closes.
func (c *connection) play() error {
	if len(c.script) > 0 && c.script[0].Do != "now" {
		if err := c.readRequest(); err != nil {
			return err
		}
	}
	for _, s := range c.script {
		if err := c.step(s); err != nil {
			return err
		}
	}
	for {
		if err := c.readRequest(); err != nil {
			return err
		}
		if err := c.answer(); err != nil {
			return err
		}
	}
}

// secure does the handshake, if the upstream speaks TLS, and finds out whether HTTP/2 is spoken.
func (c *connection) secure() error {
	two := c.scene.http2
	if c.scene.tls != nil {
		secure := tls.Server(c.conn, c.scene.tls)
		c.setWaiting(true, false)
		err := secure.HandshakeContext(c.scene.ctx)
		note := "handshake: "
		if err != nil {
			note += handshakeFailure(err)
		} else {
			note = describeTLS(secure.ConnectionState())
			two = secure.ConnectionState().NegotiatedProtocol == "h2"
		}
		c.mu.Lock()
		c.out.Data += note + "\n"
		if err == nil {
			c.conn = secure
		}
		c.mu.Unlock()
		if err != nil {
			return io.EOF
		}
		c.reader = bufio.NewReader(secure)
	}
	if two {
		return c.beginHTTP2()
	}
	return nil
}

func (c *connection) answer() error {
	text := c.scene.nextAnswer()
	if c.h2 != nil {
		return c.answerHTTP2(text)
	}
	_, err := io.WriteString(c.conn, text)
	return err
}

func (c *connection) step(s corpus.Step) error {
	switch {
	case s.H2 != nil && c.h2 != nil:
		return c.sendHTTP2(s.H2)
	case s.Raw != "":
		_, err := io.WriteString(c.conn, s.Raw)
		return err
	case s.Data > 0:
		return c.readData(s.Data)
	case s.Wait > 0:
		return task.Sleep(c.scene.ctx, time.Duration(s.Wait))
	case s.Signal != "":
		c.scene.signals.give(s.Signal)
		return nil
	case s.Await != "":
		return c.scene.signals.wait(c.scene.ctx, s.Await)
	}
	switch s.Do {
	case "now":
		return nil
	case "request":
		return c.readRequest()
	case "head":
		return c.readHead()
	case "body":
		return c.readBody()
	case "answer":
		return c.answer()
	case "close":
		return errors.Join(errEnd, closeConn(c.conn, false))
	case "reset":
		return errors.Join(errEnd, closeConn(c.conn, true))
	case "half-close":
		return halfClose(c.conn)
	case "hold":
		return c.hold()
	case "echo":
		return c.echo()
	}
	return fmt.Errorf("an upstream can't %q", s.Do)
}

func (c *connection) readRequest() error {
	if c.h2 != nil {
		return c.readHTTP2(true)
	}
	if err := c.readHead(); err != nil {
		return err
	}
	return c.readBody()
}

func (c *connection) readHead() error {
	if c.h2 != nil {
		return c.readHTTP2(false)
	}
	c.setWaiting(true, false)
	m, err := wire.ReadHead(c.reader)
	c.setWaiting(false, false)
	if err != nil {
		m.Cut = closeMark(err)
	}
	if len(m.Head) > 0 {
		c.mu.Lock()
		c.out.Requests = append(c.out.Requests, m)
		c.mu.Unlock()
	}
	return err
}

func (c *connection) readBody() error {
	if c.h2 != nil {
		return c.endHTTP2()
	}
	c.mu.Lock()
	m := c.out.Requests[len(c.out.Requests)-1]
	c.mu.Unlock()
	if isTunnel(&m) {
		return nil
	}
	c.setWaiting(true, true)
	err := wire.ReadRequestBody(c.reader, &m)
	c.setWaiting(false, false)
	if err != nil {
		m.Cut = closeMark(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Requests[len(c.out.Requests)-1] = m
	return err
}

// isTunnel tells a request whose body has no end of its own.
func isTunnel(m *wire.Message) bool {
	_, upgrade := m.Header("upgrade")
	return upgrade || len(m.Head) > 0 && len(m.Head[0]) > 8 && m.Head[0][:8] == "CONNECT "
}

// hold reads until the proxy closes.
func (c *connection) hold() error {
	if c.h2 != nil {
		return c.holdHTTP2()
	}
	c.setWaiting(true, true)
	defer c.setWaiting(false, false)
	data, err := io.ReadAll(c.reader)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Data += string(data)
	if err == nil {
		err = io.EOF
	}
	return err
}

func (c *connection) echo() error {
	buf := make([]byte, 32<<10)
	for {
		c.setWaiting(true, true)
		n, err := c.reader.Read(buf)
		c.setWaiting(false, false)
		c.mu.Lock()
		c.out.Data += string(buf[:n])
		c.mu.Unlock()
		if _, err := c.conn.Write(buf[:n]); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
}

func (c *connection) readData(n int) error {
	c.setWaiting(true, true)
	defer c.setWaiting(false, false)
	buf := make([]byte, n)
	got, err := io.ReadFull(c.reader, buf)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Data += string(buf[:got])
	return err
}

func (c *connection) setWaiting(waiting, held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting, c.held = waiting, held
}

// finish ends the connection after the clients have left: a held one is the proxy's to close, an
// idle one is ours.
func (c *connection) finish() Connection {
	c.mu.Lock()
	idle := c.waiting && !c.held
	c.mu.Unlock()
	if !idle {
		timer := time.NewTimer(heldFor)
		defer timer.Stop()
		select {
		case <-c.ended:
		case <-timer.C:
		}
	}
	c.mu.Lock()
	if c.out.End == "" {
		c.out.End = EndOpen
	}
	conn := c.conn
	c.mu.Unlock()
	conn.Close()
	<-c.ended
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.out
	out.Requests = slices.Clone(c.out.Requests)
	return out
}
