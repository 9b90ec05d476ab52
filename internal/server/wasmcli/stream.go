package wasmcli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// driver is a stream with one filter between a made-up client and a made-up upstream: the contract of
// api/filter as a connection manager keeps it. All but what the comment says is used inside the stream.
type driver struct {
	// Set by newDriver, never changed.
	mon   stream.Monitor
	x     *exchange
	make  func(filter.Stream) any
	limit int
	done  chan struct{} // closed at the end

	info     stream.Info
	f        any
	side     [2]half
	request  header.Map // as sent, then as changed
	response header.Map // the upstream's, or the local reply
	trailers [2]header.Map
	answered bool // the upstream has its request and has answered

	requestCut, over, finished bool
	result                     result
}

// half is one direction of a stream.
type half struct {
	held      buf.Buffer
	showing   *buf.Buffer
	seq       uint32 // of the Pause that is good
	wait      bool   // no callbacks until Resume
	headers   bool   // the head is held
	replay    bool   // the head's callback waits: what came after it is yet to be shown
	end       bool
	trailers  bool // they have come, and are held
	shown     bool // and their callback was made
	watermark bool
}

// result is what came out of a stream.
type result struct {
	upstream, downstream outcome
	local                bool // the plugin answered
	details              string
	reset                string // why the stream ended without an answer
}

// outcome is a message as it came out.
type outcome struct {
	headers, trailers [][2]string
	body              []byte
	complete          bool
}

func newDriver(x *exchange, conn *stream.ConnInfo, mk func(filter.Stream) any) *driver {
	d := &driver{x: x, make: mk, limit: x.BufferBytes, done: make(chan struct{})}
	if d.limit <= 0 {
		d.limit = 1 << 20
	}
	d.info.Reset(time.Now(), conn)
	d.info.Protocol = stream.HTTP11
	d.info.Cluster, d.info.RouteName = x.Cluster, x.Route
	d.info.Metadata = x.Metadata
	d.info.Remote = conn.Remote.IP.Addr()
	r := &x.Request
	for _, h := range [][2]string{
		{":authority", cmp.Or(r.Authority, "localhost")},
		{":path", cmp.Or(r.Path, "/")},
		{":method", cmp.Or(r.Method, d.method())},
		{":scheme", cmp.Or(r.Scheme, "http")},
	} {
		if !has(r.Headers, h[0]) {
			d.request.Add(h[0], h[1])
		}
	}
	for _, h := range r.Headers {
		d.request.Add(h[0], h[1])
	}
	d.info.Request = &d.request
	d.mon.OnPanic = func(t *stream.Turn, value any) {
		d.over, d.result.reset = true, fmt.Sprint("panic: ", value)
		d.finish(t)
	}
	return d
}

func (d *driver) method() string {
	if d.x.Request.Body != "" || len(d.x.Request.Chunks) > 0 {
		return "POST"
	}
	return "GET"
}

func has(list pairs, name string) bool {
	for _, p := range list {
		if p[0] == name {
			return true
		}
	}
	return false
}

func (d *driver) target() stream.Target { return stream.Target{M: &d.mon, To: d, Gen: d.mon.Gen()} }

// Receive implements stream.Receiver.
func (d *driver) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventHeaders:
		d.f = d.make(d)
		d.pushHeaders(t, filter.Request, e.End)
	case stream.EventData:
		if !d.requestCut {
			d.pushBytes(t, filter.Request, e.Data, e.End)
		}
	case stream.EventTrailers:
		if !d.requestCut {
			d.info.RequestTrailers = &d.trailers[filter.Request]
			d.pushTrailers(t, filter.Request)
		}
	case stream.EventCall:
		if f, ok := e.Ref.(func(*stream.Turn)); ok {
			f(t)
		}
	case stream.EventResume:
		dir := filter.Direction(e.Seq & 1)
		if d.side[dir].seq == e.Seq>>1 {
			d.side[dir].seq++
			d.resume(t, dir)
		}
	case stream.EventReset:
		d.over, d.result.reset = true, "the client went away"
	}
	if d.over && !d.finished {
		d.finish(t)
	}
}

func (d *driver) finish(t *stream.Turn) {
	d.finished = true
	d.info.Complete = time.Since(d.info.Start)
	if l, ok := d.f.(filter.Logger); ok {
		l.OnLog(t, &d.info)
	}
	if l, ok := d.f.(filter.Destroyer); ok {
		l.OnDestroy(t)
	}
	for i := range d.side {
		d.side[i].held.Reset()
	}
	d.mon.Retire()
	close(d.done)
}

func (d *driver) stopped(dir filter.Direction) bool {
	return d.over || (dir == filter.Request && d.requestCut)
}

func (d *driver) pushHeaders(t *stream.Turn, dir filter.Direction, end bool) {
	a := filter.Continue
	if dir == filter.Request {
		if f, ok := d.f.(filter.RequestHeaders); ok {
			a = f.OnRequestHeaders(t, d.info.Request, end)
		}
	} else if f, ok := d.f.(filter.ResponseHeaders); ok {
		a = f.OnResponseHeaders(t, d.info.Response, end)
	}
	s := &d.side[dir]
	switch {
	case d.stopped(dir) || a == filter.Done:
	case a == filter.Continue:
		d.passHeaders(t, dir, end)
	default:
		s.headers, s.end, s.wait, s.replay = true, end, a == filter.Wait, a == filter.Wait
	}
}

func (d *driver) pushBytes(t *stream.Turn, dir filter.Direction, p []byte, end bool) {
	var b buf.Buffer
	b.Append(p)
	d.pushData(t, dir, &b, end)
	b.Reset()
}

func (d *driver) pushData(t *stream.Turn, dir filter.Direction, b *buf.Buffer, end bool) {
	s := &d.side[dir]
	if s.wait {
		d.keep(t, dir, b, end)
		return
	}
	if s.held.Len() > 0 {
		s.held.Append(b.Bytes())
		b.Reset()
		b.Swap(&s.held)
	}
	a := filter.Continue
	s.showing = b
	if dir == filter.Request {
		d.info.BytesReceived += uint64(b.Len())
		if f, ok := d.f.(filter.RequestData); ok {
			a = f.OnRequestData(t, b, end)
		}
	} else if f, ok := d.f.(filter.ResponseData); ok {
		a = f.OnResponseData(t, b, end)
	}
	s.showing = nil
	switch {
	case d.stopped(dir) || a == filter.Done:
	case a == filter.Continue:
		d.release(t, dir, b, end)
	default:
		s.wait = a == filter.Wait
		d.keep(t, dir, b, end)
	}
}

// keep holds data for the filter, up to the stream's limit unless the filter stops its source there.
func (d *driver) keep(t *stream.Turn, dir filter.Direction, b *buf.Buffer, end bool) {
	s := &d.side[dir]
	s.held.Append(b.Bytes())
	b.Reset()
	s.end = s.end || end
	if s.held.Len() > d.limit && !s.wait && !s.watermark {
		status := 413
		if dir == filter.Response {
			status = 500
		}
		d.Reply(t, &filter.Reply{Status: status, Details: "request_payload_too_large"})
	}
}

func (d *driver) pushTrailers(t *stream.Turn, dir filter.Direction) {
	s := &d.side[dir]
	s.trailers, s.end = true, true
	if s.wait {
		return
	}
	d.showTrailers(t, dir)
}

func (d *driver) showTrailers(t *stream.Turn, dir filter.Direction) {
	s := &d.side[dir]
	s.shown = true
	a := filter.Continue
	if dir == filter.Request {
		if f, ok := d.f.(filter.RequestTrailers); ok {
			a = f.OnRequestTrailers(t, d.info.RequestTrailers)
		}
	} else if f, ok := d.f.(filter.ResponseTrailers); ok {
		a = f.OnResponseTrailers(t, d.info.ResponseTrailers)
	}
	switch {
	case d.stopped(dir) || a == filter.Done:
	case a == filter.Continue:
		d.passHeld(t, dir)
	default:
		s.wait = true
	}
}

// passHeld passes all that is held, trailers too.
func (d *driver) passHeld(t *stream.Turn, dir filter.Direction) {
	s := &d.side[dir]
	var b buf.Buffer
	b.Swap(&s.held)
	defer b.Reset()
	if s.headers || b.Len() > 0 {
		d.release(t, dir, &b, false)
	}
	if s.trailers && s.shown && !d.stopped(dir) {
		s.trailers = false
		d.passEnd(t, dir)
	}
}

// release passes data, and the head before it if that is held.
func (d *driver) release(t *stream.Turn, dir filter.Direction, b *buf.Buffer, end bool) {
	s := &d.side[dir]
	if s.headers {
		s.headers = false
		d.passHeaders(t, dir, false)
	}
	if !d.stopped(dir) {
		d.passData(t, dir, b, end)
	}
}

// resume goes on as if the callback that waits had said Continue.
func (d *driver) resume(t *stream.Turn, dir filter.Direction) {
	s := &d.side[dir]
	if d.stopped(dir) || (!s.wait && !s.headers && s.held.Len() == 0) {
		return
	}
	replay := s.replay
	s.wait, s.replay = false, false
	if !replay {
		if s.trailers && !s.shown {
			d.showTrailers(t, dir)
			return
		}
		if s.trailers {
			d.passHeld(t, dir)
			return
		}
		var b buf.Buffer
		b.Swap(&s.held)
		defer b.Reset()
		d.release(t, dir, &b, s.end)
		return
	}
	var b buf.Buffer
	b.Swap(&s.held)
	defer b.Reset()
	s.headers = false
	alone := s.end && b.Len() == 0 && !s.trailers
	d.passHeaders(t, dir, alone)
	if !d.stopped(dir) && !alone && (b.Len() > 0 || (s.end && !s.trailers)) {
		d.pushData(t, dir, &b, s.end && !s.trailers)
	}
	if s.trailers && !d.stopped(dir) && !s.wait {
		d.showTrailers(t, dir)
	}
}

func (d *driver) out(dir filter.Direction) *outcome {
	if dir == filter.Request {
		return &d.result.upstream
	}
	return &d.result.downstream
}

func listOf(m *header.Map) [][2]string {
	var out [][2]string
	for i := range m.Len() {
		name, value := m.At(i)
		out = append(out, [2]string{strings.Clone(name), strings.Clone(value)})
	}
	return out
}

func (d *driver) passHeaders(t *stream.Turn, dir filter.Direction, end bool) {
	m := d.info.Request
	if dir == filter.Response {
		m = d.info.Response
		d.info.Status, _ = strconv.Atoi(m.Value(header.Status))
	}
	d.out(dir).headers = listOf(m)
	if end {
		d.passEnd(t, dir)
	}
}

func (d *driver) passData(t *stream.Turn, dir filter.Direction, b *buf.Buffer, end bool) {
	o := d.out(dir)
	o.body = append(o.body, b.Bytes()...)
	if dir == filter.Response {
		d.info.BytesSent += uint64(b.Len())
	}
	if end {
		d.passEnd(t, dir)
	}
}

// passEnd ends a direction, with trailers if there are any: the upstream then answers, the client is
// content.
func (d *driver) passEnd(t *stream.Turn, dir filter.Direction) {
	o := d.out(dir)
	o.complete = true
	m := d.info.RequestTrailers
	if dir == filter.Response {
		m = d.info.ResponseTrailers
	}
	if m != nil {
		o.trailers = listOf(m)
	}
	if dir == filter.Response {
		d.over = true
		return
	}
	d.respond(t)
}

// respond is the upstream: it answers when it has the whole request.
func (d *driver) respond(t *stream.Turn) {
	if d.answered {
		return
	}
	d.answered = true
	r := &d.x.Response
	d.response.Reset()
	if r.Status == 0 {
		r.Status = 200
	}
	if !has(r.Headers, ":status") {
		d.response.Add(":status", strconv.Itoa(r.Status))
	}
	for _, h := range r.Headers {
		d.response.Add(h[0], h[1])
	}
	d.info.Response = &d.response
	pieces := r.pieces(0)
	d.pushHeaders(t, filter.Response, len(pieces) == 0 && len(r.Trailers) == 0)
	for _, p := range pieces {
		if d.over {
			return
		}
		d.pushBytes(t, filter.Response, []byte(p), false)
	}
	switch {
	case d.over || (len(pieces) == 0 && len(r.Trailers) == 0):
	case len(r.Trailers) > 0:
		for _, h := range r.Trailers {
			d.trailers[filter.Response].Add(h[0], h[1])
		}
		d.info.ResponseTrailers = &d.trailers[filter.Response]
		d.pushTrailers(t, filter.Response)
	default:
		d.pushBytes(t, filter.Response, nil, true)
	}
}

// where says what a stream that doesn't go on is waiting in.
func (d *driver) where() string {
	var parts []string
	for dir, name := range []string{"request", "response"} {
		s := &d.side[dir]
		switch {
		case s.headers:
			parts = append(parts, "the "+name+" headers")
		case s.trailers && s.shown:
			parts = append(parts, "the "+name+" trailers")
		case s.wait || s.held.Len() > 0:
			parts = append(parts, "the "+name+" body")
		}
	}
	if len(parts) == 0 {
		return "the plugin's VM"
	}
	return strings.Join(parts, " and ")
}
