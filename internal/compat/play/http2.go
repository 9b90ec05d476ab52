package play

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/wire"
)

// http2Client is the HTTP/2 side of a client: it sends what the script says, right or wrong, and
// writes down what comes, free of how it was compressed and divided into frames.
type http2Client struct {
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	answers map[uint32]*wire.Message
	order   []uint32
	ended   int
}

func (c *client) playHTTP2(s *corpus.H2) error {
	if c.h2 == nil {
		h := &http2Client{framer: http2.NewFramer(c.conn, c.reader), answers: map[uint32]*wire.Message{}}
		h.framer.AllowIllegalWrites = true
		h.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		h.encoder = hpack.NewEncoder(&h.block)
		c.h2 = h
		if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
			return err
		}
		if err := h.framer.WriteSettings(); err != nil {
			return err
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(c.within)); err != nil {
		return err
	}
	// As with HTTP/1: a proxy may well have closed by now, and what it said counts.
	if err := c.h2.send(s, c.expander); err != nil && closeMark(err) == "" {
		return err
	}
	err := c.h2.await(s.Answers)
	c.out.Responses = nil
	for _, id := range c.h2.order {
		c.out.Responses = append(c.out.Responses, *c.h2.answers[id])
	}
	return err
}

func (h *http2Client) send(s *corpus.H2, e corpus.Expander) error {
	if f := s.Frame; f != nil {
		data, err := e.Expand(f.Data)
		if err != nil {
			return err
		}
		return h.framer.WriteRawFrame(http2.FrameType(f.Type), http2.Flags(f.Flags), f.Stream, []byte(data))
	}
	h.block.Reset()
	for _, line := range s.Headers {
		line, err := e.Expand(line)
		if err != nil {
			return err
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			return fmt.Errorf("header %q", line)
		}
		if err := h.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
			return err
		}
	}
	id := max(s.Stream, 1)
	if err := h.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: h.block.Bytes(), EndHeaders: true, EndStream: s.Body == "" && !s.Open,
	}); err != nil || s.Body == "" {
		return err
	}
	return h.framer.WriteData(id, !s.Open, []byte(s.Body))
}

// await reads until so many streams more have ended. The end of the connection is one of all.
func (h *http2Client) await(n int) error {
	for want := h.ended + n; h.ended < want; {
		f, err := h.framer.ReadFrame()
		var bad http2.StreamError
		if errors.As(err, &bad) {
			return fmt.Errorf("a malformed answer: %w", bad.Cause)
		}
		if err != nil {
			return err
		}
		if err := h.frame(f); err != nil {
			return err
		}
	}
	return nil
}

func (h *http2Client) frame(f http2.Frame) error {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		m := h.message(id)
		lines := make([]string, 0, len(f.Fields))
		for _, field := range f.Fields {
			lines = append(lines, field.Name+": "+field.Value)
		}
		if len(m.Head) > 0 && !strings.HasPrefix(m.Head[0], ":status: 1") {
			m.Trailers = lines
		} else {
			m.Head = append(m.Head, lines...)
		}
		h.ended += end(f.StreamEnded())
	case *http2.DataFrame:
		m := h.message(id)
		m.Body += string(f.Data())
		h.ended += end(f.StreamEnded())
	case *http2.RSTStreamFrame:
		h.message(id).Cut = "reset " + f.ErrCode.String()
		h.ended++
	case *http2.GoAwayFrame:
		m := h.message(0)
		m.Cut = fmt.Sprintf("goaway %s, last stream %d", f.ErrCode, f.LastStreamID)
		h.ended++
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return h.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if f.IsAck() {
			h.message(0).Body = "ping"
			h.ended++
		}
	}
	return nil
}

func end(ended bool) int {
	if ended {
		return 1
	}
	return 0
}

// message is the record of a stream, or of the connection as 0.
func (h *http2Client) message(id uint32) *wire.Message {
	if m, ok := h.answers[id]; ok {
		return m
	}
	m := &wire.Message{}
	h.answers[id] = m
	h.order = append(h.order, id)
	slices.Sort(h.order)
	return m
}
