package play

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"time"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/wire"
	"sidecar/internal/task"
)

type client struct {
	ctx      context.Context //nolint:containedctx // lives as long as one run
	expander corpus.Expander
	signals  *signals
	within   time.Duration
	settle   time.Duration

	tls *tls.Config // nil for plaintext

	conn    net.Conn
	h2      *http2Peer
	reader  *bufio.Reader
	methods []string // of requests sent and not answered yet
	tunnel  bool     // after CONNECT or an upgrade
	out     Client
}

// requestLine finds the methods in what a client sends: the form of a response depends on them.
var requestLine = regexp.MustCompile(`(?m)^([A-Z]+) \S+ HTTP/1\.[01]\r?$`)

var errEnd = errors.New("end of script")

func (c *client) run(address string, steps []corpus.Step) Client {
	conn, err := (&net.Dialer{Timeout: c.within}).DialContext(c.ctx, "tcp", address)
	if err != nil {
		return Client{Failure: "connect: " + err.Error()}
	}
	defer conn.Close()
	if c.tls != nil {
		secure := tls.Client(conn, c.tls)
		if err := conn.SetDeadline(time.Now().Add(c.within)); err != nil {
			return Client{Failure: err.Error()}
		}
		if err := secure.HandshakeContext(c.ctx); err != nil {
			return Client{Failure: "handshake: " + handshakeFailure(err)}
		}
		if p := secure.ConnectionState().NegotiatedProtocol; p != "" {
			c.out.Data = "alpn " + p + "\n"
		}
		conn = secure
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
	for i, s := range steps {
		err := c.step(s)
		if errors.Is(err, errEnd) {
			c.out.End = EndHere
			return c.out
		}
		if err != nil {
			c.out.Failure = fmt.Sprintf("step %d: %s", i, failure(err))
			break
		}
	}
	c.settleDown()
	return c.out
}

func failure(err error) string {
	if mark := closeMark(err); mark != "" {
		return mark
	}
	return err.Error()
}

// settleDown waits for the proxy to close, or not to.
func (c *client) settleDown() {
	if c.out.End != "" {
		// The proxy's other side may not be through yet.
		_ = task.Sleep(c.ctx, c.settle)
		return
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(c.settle)); err != nil {
		c.out.End = EndClosed
		return
	}
	var err error
	if c.h2 != nil && c.h2.settled {
		err = c.settleHTTP2()
	} else {
		var rest []byte
		rest, err = io.ReadAll(c.reader)
		c.out.Data += string(rest)
	}
	c.out.End = EndClosed
	if closeMark(err) == "timeout" {
		c.out.End = EndOpen
		return
	}
	_ = task.Sleep(c.ctx, c.settle/2) // as above
}

func (c *client) step(s corpus.Step) error {
	switch {
	case s.Send != "":
		return c.send(corpus.Text(s.Send))
	case s.Raw != "":
		return c.send(s.Raw)
	case s.H2 != nil:
		return c.playHTTP2(s.H2)
	case s.Read > 0:
		return c.readResponses(s.Read)
	case s.Data > 0:
		return c.readData(s.Data)
	case s.Wait > 0:
		return task.Sleep(c.ctx, time.Duration(s.Wait))
	case s.Signal != "":
		c.signals.give(s.Signal)
		return nil
	case s.Await != "":
		return c.signals.waitFor(c.ctx, c.within, s.Await)
	}
	switch s.Do {
	case "read":
		return c.readResponses(1)
	case "head":
		return c.readHead()
	case "close":
		return errors.Join(errEnd, closeConn(c.conn, false))
	case "reset":
		return errors.Join(errEnd, closeConn(c.conn, true))
	case "half-close":
		return halfClose(c.conn)
	}
	return fmt.Errorf("a client can't %q", s.Do)
}

func (c *client) send(text string) error {
	text, err := c.expander.Expand(text)
	if err != nil {
		return err
	}
	if !c.tunnel {
		for _, m := range requestLine.FindAllStringSubmatch(text, -1) {
			c.methods = append(c.methods, m[1])
		}
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.within)); err != nil {
		return err
	}
	// A proxy that refuses a request may close while it is still being sent: what counts is the
	// answer, so a failed write isn't a failed step.
	_, _ = io.WriteString(c.conn, text)
	return nil
}

// readResponses reads n final responses and the interim ones before them.
func (c *client) readResponses(n int) error {
	for range n {
		for {
			final, err := c.readResponse()
			if err != nil {
				return err
			}
			if final {
				break
			}
		}
	}
	return nil
}

func (c *client) readResponse() (final bool, err error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.within)); err != nil {
		return false, err
	}
	m, err := wire.ReadHead(c.reader)
	if err != nil {
		m.Cut = closeMark(err)
		if len(m.Head) > 0 {
			c.out.Responses = append(c.out.Responses, m)
		}
		return false, err
	}
	code, err := m.Status()
	if err != nil {
		c.out.Responses = append(c.out.Responses, m)
		return false, err
	}
	if code >= 100 && code < 200 && code != 101 {
		c.out.Responses = append(c.out.Responses, m)
		return false, nil
	}
	method := "GET"
	if len(c.methods) > 0 {
		method, c.methods = c.methods[0], c.methods[1:]
	}
	c.tunnel = code == 101 || method == "CONNECT" && code < 300
	err = wire.ReadResponseBody(c.reader, &m, method)
	if m.Framing == wire.FramingUntilClose && err == nil {
		c.out.End = EndClosed
	}
	if err != nil {
		m.Cut = closeMark(err)
	}
	c.out.Responses = append(c.out.Responses, m)
	return true, err
}

// readHead reads only the head of a response: its body is data.
func (c *client) readHead() error {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.within)); err != nil {
		return err
	}
	m, err := wire.ReadHead(c.reader)
	if len(m.Head) > 0 {
		c.out.Responses = append(c.out.Responses, m)
	}
	return err
}

func (c *client) readData(n int) error {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.within)); err != nil {
		return err
	}
	buf := make([]byte, n)
	got, err := io.ReadFull(c.reader, buf)
	c.out.Data += string(buf[:got])
	return err
}
