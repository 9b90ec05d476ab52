package play

import (
	"io"
	"strings"

	"golang.org/x/net/http2"

	"sidecar/internal/compat/corpus"
)

// beginHTTP2 reads the preface and answers the first settings.
func (c *connection) beginHTTP2() error {
	c.setWaiting(true, false)
	preface := make([]byte, len(http2.ClientPreface))
	n, err := io.ReadFull(c.reader, preface)
	if string(preface[:n]) != http2.ClientPreface[:n] {
		c.mu.Lock()
		c.out.Data += string(preface[:n])
		c.mu.Unlock()
	}
	if err != nil {
		return err
	}
	c.h2 = newHTTP2Peer(c.conn, c.reader)
	return c.h2.framer.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
}

// frame reads one frame and notes it. A connection with an open stream is the proxy's to go on with.
func (c *connection) frame() error {
	c.setWaiting(true, len(c.h2.open) > 0)
	err := c.h2.next()
	c.setWaiting(false, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Requests = c.h2.recorded()
	return err
}

// readHTTP2 reads until a further request has begun or, if whole, ended.
func (c *connection) readHTTP2(whole bool) error {
	begun, ended := c.h2.last, c.h2.ended
	for c.h2.last == begun || whole && c.h2.ended == ended {
		if err := c.frame(); err != nil {
			return err
		}
	}
	return nil
}

// endHTTP2 reads until the stream that began last has ended.
func (c *connection) endHTTP2() error {
	for c.h2.open[c.h2.last] {
		if err := c.frame(); err != nil {
			return err
		}
	}
	return nil
}

// holdHTTP2 reads until the proxy closes.
func (c *connection) holdHTTP2() error {
	for {
		if err := c.frame(); err != nil {
			return err
		}
	}
}

func (c *connection) sendHTTP2(s *corpus.H2) error {
	id := s.Stream
	if id == 0 {
		id = c.h2.last
	}
	return c.h2.send(s, id, c.scene.expander)
}

// answerHTTP2 says in HTTP/2 what the text of an answer says in HTTP/1.
func (c *connection) answerHTTP2(text string) error {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	s := &corpus.H2{Body: body}
	if f := strings.Fields(lines[0]); len(f) > 1 {
		s.Headers = append(s.Headers, ":status: "+f[1])
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		s.Headers = append(s.Headers, strings.ToLower(name)+": "+value)
	}
	return c.sendHTTP2(s)
}
