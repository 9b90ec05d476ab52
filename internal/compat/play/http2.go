package play

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/wire"
)

// http2Peer is one end of a connection of HTTP/2: it sends what the script says, right or wrong, and
// writes down what comes, free of how it was compressed and divided into frames.
type http2Peer struct {
	framer   *http2.Framer
	block    bytes.Buffer
	encoder  *hpack.Encoder
	messages map[uint32]*wire.Message
	order    []uint32
	ended    int
	settled  bool   // the other end's first SETTINGS came
	last     uint32 // the stream that began last
	open     map[uint32]bool
}

func newHTTP2Peer(w io.Writer, r io.Reader) *http2Peer {
	h := &http2Peer{
		framer: http2.NewFramer(w, r), messages: map[uint32]*wire.Message{}, open: map[uint32]bool{},
	}
	h.framer.AllowIllegalWrites = true
	h.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.encoder = hpack.NewEncoder(&h.block)
	return h
}

func (c *client) playHTTP2(s *corpus.H2) error {
	if err := c.conn.SetDeadline(time.Now().Add(c.within)); err != nil {
		return err
	}
	if c.h2 == nil {
		c.h2 = newHTTP2Peer(c.conn, c.reader)
		if err := c.h2.greet(c.conn); err != nil {
			return err
		}
	}
	// As with HTTP/1: a proxy may well have closed by now, and what it said counts.
	if err := c.h2.send(s, max(s.Stream, 1), c.expander); err != nil && closeMark(err) == "" {
		return err
	}
	err := c.h2.await(s.Answers)
	c.out.Responses = c.h2.recorded()
	return err
}

// settleHTTP2 takes what comes in the time that is left, up to the end of the connection.
func (c *client) settleHTTP2() error {
	var err error
	for err == nil {
		err = c.h2.await(1)
	}
	c.out.Responses = c.h2.recorded()
	return err
}

// greet sends the preface and settings, and answers those of the other end, so that what comes after
// is in the same order each time.
func (h *http2Peer) greet(conn net.Conn) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	if err := h.framer.WriteSettings(); err != nil {
		return err
	}
	for !h.settled {
		if err := h.next(); err != nil {
			return err
		}
	}
	return nil
}

// send writes one step's frames; id is the stream unless a frame names its own.
func (h *http2Peer) send(s *corpus.H2, id uint32, e corpus.Expander) error {
	for range max(s.Times, 1) {
		if err := h.sendOnce(s, id, e); err != nil {
			return err
		}
	}
	return nil
}

func (h *http2Peer) sendOnce(s *corpus.H2, id uint32, e corpus.Expander) error {
	if f := s.Frame; f != nil {
		data, err := e.Expand(f.Data)
		if err != nil {
			return err
		}
		more, err := hex.DecodeString(strings.ReplaceAll(f.Hex, " ", ""))
		if err != nil {
			return err
		}
		payload := append([]byte(data), more...)
		return h.framer.WriteRawFrame(http2.FrameType(f.Type), http2.Flags(f.Flags), f.Stream, payload)
	}
	body, err := e.Expand(s.Body)
	if err != nil {
		return err
	}
	rest := body != "" || len(s.Trailers) > 0
	if len(s.Headers) > 0 {
		if err := h.head(id, s.Headers, !rest && !s.Open, e); err != nil {
			return err
		}
	}
	if body != "" || len(s.Headers) == 0 && len(s.Trailers) == 0 {
		for p := []byte(body); ; {
			n := min(len(p), 16384)
			last := n == len(p)
			if err := h.framer.WriteData(id, last && len(s.Trailers) == 0 && !s.Open, p[:n]); err != nil {
				return err
			}
			if p = p[n:]; last {
				break
			}
		}
	}
	if len(s.Trailers) > 0 {
		return h.head(id, s.Trailers, !s.Open, e)
	}
	return nil
}

func (h *http2Peer) head(id uint32, lines []string, last bool, e corpus.Expander) error {
	h.block.Reset()
	for _, line := range lines {
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
	return h.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: h.block.Bytes(), EndHeaders: true, EndStream: last,
	})
}

// await reads until so many streams more have ended. The end of the connection is one of all.
func (h *http2Peer) await(n int) error {
	for want := h.ended + n; h.ended < want; {
		if err := h.next(); err != nil {
			return err
		}
	}
	return nil
}

// next reads one frame.
func (h *http2Peer) next() error {
	f, err := h.framer.ReadFrame()
	if bad, ok := errors.AsType[http2.StreamError](err); ok {
		return fmt.Errorf("a malformed answer: %w", bad.Cause)
	}
	if err != nil {
		return err
	}
	return h.frame(f)
}

func (h *http2Peer) frame(f http2.Frame) error {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		h.gotHead(id, f)
	case *http2.DataFrame:
		m := h.message(id)
		m.Body += string(f.Data())
		h.end(id, f.StreamEnded())
	case *http2.RSTStreamFrame:
		h.message(id).Cut = "reset " + f.ErrCode.String()
		h.end(id, true)
	case *http2.GoAwayFrame:
		m := h.message(0)
		if m.Cut != "" {
			m.Cut += "; "
		}
		m.Cut += fmt.Sprintf("goaway %s, last stream %d", f.ErrCode, f.LastStreamID)
		h.ended++
	case *http2.SettingsFrame:
		if !f.IsAck() {
			h.settled = true
			return h.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if f.IsAck() {
			h.message(0).Body = "ping"
			h.ended++
			return nil
		}
		return h.framer.WritePing(true, f.Data)
	}
	return nil
}

func (h *http2Peer) gotHead(id uint32, f *http2.MetaHeadersFrame) {
	m := h.message(id)
	lines := make([]string, 0, len(f.Fields))
	for _, field := range f.Fields {
		lines = append(lines, field.Name+": "+field.Value)
	}
	switch interim := len(m.Head) > 0 && strings.HasPrefix(m.Head[0], ":status: 1"); {
	case len(m.Head) == 0 || interim:
		m.Head = append(m.Head, lines...)
		h.last, h.open[id] = id, true
	default:
		m.Trailers = lines
	}
	h.end(id, f.StreamEnded())
}

func (h *http2Peer) end(id uint32, ended bool) {
	if ended {
		delete(h.open, id)
		h.ended++
	}
}

// recorded returns all that came, by stream.
func (h *http2Peer) recorded() []wire.Message {
	var out []wire.Message
	for _, id := range h.order {
		out = append(out, *h.messages[id])
	}
	return out
}

// message is the record of a stream, or of the connection as 0.
func (h *http2Peer) message(id uint32) *wire.Message {
	if m, ok := h.messages[id]; ok {
		return m
	}
	m := &wire.Message{}
	h.messages[id] = m
	h.order = append(h.order, id)
	slices.Sort(h.order)
	return m
}
