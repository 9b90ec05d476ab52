package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// grpcAnswer is a message of 100 bytes with its prefix.
const grpcAnswer = 100

// ServeHTTP2 answers HTTP/2 requests with prior knowledge on l until it is closed: 1 KB, or for those
// of gRPC one message and trailers. It never looks at what is asked for.
func ServeHTTP2(l net.Listener) error {
	return serve(l, func(conn net.Conn) { _ = newHTTP2Conn(conn).run() })
}

type http2Conn struct {
	r       *bufio.Reader
	w       *bufio.Writer
	framer  *http2.Framer
	decoder *hpack.Decoder
	grpc    bool            // of the header block being read
	open    map[uint32]bool // streams with a body to come, and whether they are of gRPC
	window  int             // of the connection, for what is sent
	waiting []uint32        // streams that the window holds up
	kinds   map[uint32]bool // of those

	plain, message, trailers, grpcHead []byte
	body                               []byte
}

func newHTTP2Conn(conn net.Conn) *http2Conn {
	c := &http2Conn{
		r: bufio.NewReaderSize(conn, 64<<10), w: bufio.NewWriterSize(conn, 64<<10),
		open: map[uint32]bool{}, kinds: map[uint32]bool{}, window: 65535,
		body:    bytes.Repeat([]byte{'x'}, answerBytes),
		message: append([]byte{0, 0, 0, 0, grpcAnswer}, bytes.Repeat([]byte{'x'}, grpcAnswer)...),
	}
	c.framer = http2.NewFramer(c.w, c.r)
	c.framer.SetReuseFrames()
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "content-type" && f.Value == "application/grpc" {
			c.grpc = true
		}
	})
	c.plain = block(":status", "200", "content-type", "text/plain", "content-length", "1024")
	c.grpcHead = block(":status", "200", "content-type", "application/grpc")
	c.trailers = block("grpc-status", "0")
	return c
}

// block encodes fields so that the same bytes are right at any time: nothing enters the table.
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func (c *http2Conn) run() error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.r, preface); err != nil {
		return err
	}
	if err := c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1 << 20},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30},
	); err != nil {
		return err
	}
	if err := c.framer.WriteWindowUpdate(0, 1<<30); err != nil {
		return err
	}
	for {
		if c.r.Buffered() == 0 {
			if err := c.w.Flush(); err != nil {
				return err
			}
		}
		f, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		if err := c.handle(f); err != nil {
			return err
		}
	}
}

func (c *http2Conn) handle(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		c.grpc = false
		if _, err := c.decoder.Write(f.HeaderBlockFragment()); err != nil {
			return err
		}
		if !f.HeadersEnded() {
			return errors.New("a header block in pieces")
		}
		if f.StreamEnded() {
			return c.answer(f.StreamID, c.open[f.StreamID] || c.grpc)
		}
		c.open[f.StreamID] = c.grpc
	case *http2.DataFrame:
		if n := f.Length; n > 0 {
			if err := c.framer.WriteWindowUpdate(0, n); err != nil {
				return err
			}
		}
		if f.StreamEnded() {
			return c.answer(f.StreamID, c.open[f.StreamID])
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int(f.Increment)
			return c.resume()
		}
	case *http2.RSTStreamFrame:
		delete(c.open, f.StreamID)
	}
	return nil
}

// resume answers what the connection's window held up.
func (c *http2Conn) resume() error {
	for len(c.waiting) > 0 && c.window >= answerBytes {
		id := c.waiting[0]
		c.waiting = c.waiting[1:]
		if err := c.answer(id, c.kinds[id]); err != nil {
			return err
		}
		delete(c.kinds, id)
	}
	return nil
}

func (c *http2Conn) answer(id uint32, grpc bool) error {
	delete(c.open, id)
	if c.window < answerBytes {
		c.waiting, c.kinds[id] = append(c.waiting, id), grpc
		return nil
	}
	head, body := c.plain, c.body
	if grpc {
		head, body = c.grpcHead, c.message
	}
	c.window -= len(body)
	p := http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true}
	if err := c.framer.WriteHeaders(p); err != nil {
		return err
	}
	if err := c.framer.WriteData(id, !grpc, body); err != nil || !grpc {
		return err
	}
	p.BlockFragment, p.EndStream = c.trailers, true
	return c.framer.WriteHeaders(p)
}

// ServeSizes answers HTTP/2 requests with prior knowledge with as many bytes as PathSize asks for,
// and 1 KB for any other path. Unlike ServeHTTP2 it sends long bodies as windows allow.
func ServeSizes(l net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{
		Protocols: protocols, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, ok := argument(r.URL.Path, PathSize)
			if !ok {
				n = answerBytes
			}
			_, _ = io.CopyN(w, zeros{}, int64(min(n, maxBytes)))
		}),
	}
	return s.Serve(l)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
