package http_test

import (
	"strings"
	"time"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// pipe is a stream with one filter between a client (exchange) and an upstream that answers with the
// request's body: the contract of api/filter as a connection manager keeps it, and no more.
type pipe struct {
	mon   stream.Monitor
	info  stream.Info
	x     *exchange
	f     any
	side  [2]pipeSide
	local header.Map
	head  header.Map // the upstream's
	echo  []byte

	requestCut, headSent, over, finished bool
}

type pipeSide struct {
	held                  buf.Buffer
	showing               *buf.Buffer
	seq                   uint32
	headers, wait, replay bool
	end, watermark        bool
}

func newPipe(x *exchange) *pipe {
	p := new(pipe)
	p.mon.OnPanic = func(t *stream.Turn, _ any) {
		p.over = true
		p.finish(t)
	}
	p.reset(x)
	return p
}

// reset readies a pipe for an exchange.
func (p *pipe) reset(x *exchange) {
	p.info.Reset(time.Now(), &x.p.conn)
	p.x, p.f = x, nil
	p.side, p.echo = [2]pipeSide{}, p.echo[:0]
	p.local.Reset()
	p.head.Reset()
	p.requestCut, p.headSent, p.over, p.finished = false, false, false, false
	p.info.Request = &x.request
}

func (p *pipe) target() stream.Target { return stream.Target{M: &p.mon, To: p, Gen: p.mon.Gen()} }

// Receive implements stream.Receiver.
func (p *pipe) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventHeaders:
		p.f = p.x.p.newFilter(p)
		p.pushHeaders(t, filter.Request, e.End)
	case stream.EventData:
		var b buf.Buffer
		b.Append(e.Data)
		if !p.requestCut {
			p.pushData(t, filter.Request, &b, e.End)
		}
		b.Reset()
	case stream.EventCall:
		if f, ok := e.Ref.(func(*stream.Turn)); ok {
			f(t)
		}
	case stream.EventResume:
		d := filter.Direction(e.Seq & 1)
		if p.side[d].seq == e.Seq>>1 {
			p.side[d].seq++
			p.resume(t, d)
		}
	case stream.EventReset:
		p.over = true
	}
	if p.over && !p.finished {
		p.finish(t)
	}
}

func (p *pipe) finish(t *stream.Turn) {
	p.finished = true
	if l, ok := p.f.(filter.Logger); ok {
		l.OnLog(t, &p.info)
	}
	if d, ok := p.f.(filter.Destroyer); ok {
		d.OnDestroy(t)
	}
	for d := range p.side {
		p.side[d].held.Reset()
	}
	p.mon.Retire()
	close(p.x.done)
}

func (p *pipe) stopped(d filter.Direction) bool {
	return p.over || (d == filter.Request && p.requestCut)
}

func (p *pipe) pushHeaders(t *stream.Turn, d filter.Direction, end bool) {
	var a filter.Action
	if d == filter.Request {
		if f, ok := p.f.(filter.RequestHeaders); ok {
			a = f.OnRequestHeaders(t, p.info.Request, end)
		}
	} else if f, ok := p.f.(filter.ResponseHeaders); ok {
		a = f.OnResponseHeaders(t, p.info.Response, end)
	}
	s := &p.side[d]
	switch {
	case p.stopped(d) || a == filter.Done:
	case a == filter.Continue:
		p.endHeaders(t, d, end)
	default:
		s.headers, s.end, s.wait, s.replay = true, end, a == filter.Wait, a == filter.Wait
	}
}

func (p *pipe) pushData(t *stream.Turn, d filter.Direction, b *buf.Buffer, end bool) {
	s := &p.side[d]
	if s.wait {
		p.keep(t, d, b, end)
		return
	}
	if s.held.Len() > 0 {
		s.held.Append(b.Bytes())
		b.Reset()
		b.Swap(&s.held)
	}
	var a filter.Action
	s.showing = b
	if d == filter.Request {
		if f, ok := p.f.(filter.RequestData); ok {
			a = f.OnRequestData(t, b, end)
		}
	} else if f, ok := p.f.(filter.ResponseData); ok {
		a = f.OnResponseData(t, b, end)
	}
	s.showing = nil
	switch {
	case p.stopped(d) || a == filter.Done:
	case a == filter.Continue:
		p.release(t, d, b, end)
	default:
		s.wait = a == filter.Wait
		p.keep(t, d, b, end)
	}
}

func (p *pipe) keep(t *stream.Turn, d filter.Direction, b *buf.Buffer, end bool) {
	s := &p.side[d]
	s.held.Append(b.Bytes())
	b.Reset()
	s.end = s.end || end
	if s.held.Len() > p.x.p.limit && !s.wait && !s.watermark {
		p.Reply(t, &filter.Reply{Status: 413 + 87*int(d)})
	}
}

func (p *pipe) release(t *stream.Turn, d filter.Direction, b *buf.Buffer, end bool) {
	s := &p.side[d]
	if s.headers {
		s.headers = false
		p.endHeaders(t, d, false)
	}
	if !p.stopped(d) {
		p.endData(t, d, b, end)
	}
}

func (p *pipe) resume(t *stream.Turn, d filter.Direction) {
	s := &p.side[d]
	if p.stopped(d) || (!s.wait && !s.headers && s.held.Len() == 0) {
		return
	}
	replay := s.replay
	s.wait, s.replay = false, false
	var b buf.Buffer
	b.Swap(&s.held)
	defer b.Reset()
	end := s.end
	if !replay {
		p.release(t, d, &b, end)
		return
	}
	s.headers = false
	alone := end && b.Len() == 0
	p.endHeaders(t, d, alone)
	if !p.stopped(d) && !alone && (b.Len() > 0 || end) {
		p.pushData(t, d, &b, end)
	}
}

func (p *pipe) endHeaders(t *stream.Turn, d filter.Direction, end bool) {
	if d == filter.Request {
		m := new(header.Map)
		m.CopyFrom(p.info.Request)
		select {
		case p.x.p.seen <- m:
		default:
		}
		if end {
			p.respond(t)
		}
		return
	}
	h := p.info.Response
	for i := range h.Len() {
		name, value := h.At(i)
		p.x.headers = append(p.x.headers, [2]string{strings.Clone(name), strings.Clone(value)})
	}
	p.x.status = strings.Clone(h.Value(header.Status))
	p.headSent, p.over = true, p.over || end
}

func (p *pipe) endData(t *stream.Turn, d filter.Direction, b *buf.Buffer, end bool) {
	if d == filter.Response {
		p.x.body.Write(b.Bytes())
		p.over = p.over || end
		return
	}
	p.echo = append(p.echo, b.Bytes()...)
	if end {
		p.respond(t)
	}
}

// respond is the upstream: the body comes in two pieces and an end.
func (p *pipe) respond(t *stream.Turn) {
	p.head.Add(":status", "200")
	p.info.Response = &p.head
	p.pushHeaders(t, filter.Response, len(p.echo) == 0)
	if len(p.echo) == 0 {
		return
	}
	half := len(p.echo) / 2
	for _, piece := range [][]byte{p.echo[:half], p.echo[half:], nil} {
		if p.over {
			return
		}
		var b buf.Buffer
		b.Append(piece)
		p.pushData(t, filter.Response, &b, piece == nil)
		b.Reset()
	}
}

// Info implements filter.Record.
func (p *pipe) Info() *stream.Info {
	if p.f != nil && p.x.p.panics.CompareAndSwap(true, false) {
		panic("of the test")
	}
	return &p.info
}

// Held implements filter.Bodies.
func (p *pipe) Held(d filter.Direction) *buf.Buffer {
	if b := p.side[d].showing; b != nil {
		return b
	}
	return &p.side[d].held
}

// AddTrailers implements filter.Bodies: the client takes none.
func (p *pipe) AddTrailers(filter.Direction) *header.Map { return nil }

// Watermark implements filter.Bodies.
func (p *pipe) Watermark(_ *stream.Turn, d filter.Direction, on bool) { p.side[d].watermark = on }

// Reply implements filter.Control.
func (p *pipe) Reply(t *stream.Turn, r *filter.Reply) {
	if p.over {
		return
	}
	p.requestCut = true
	if p.headSent {
		p.Reset(t, nil)
		return
	}
	direct := p.info.Response != nil
	p.local.Reset()
	p.local.AddStatic(":status", statusText(r.Status))
	if r.Headers != nil {
		r.Headers(&p.local)
	}
	p.info.Response, p.info.Details = &p.local, r.Details
	p.side[filter.Response] = pipeSide{seq: p.side[filter.Response].seq + 1}
	var b buf.Buffer
	b.AppendString(r.Body)
	defer b.Reset()
	if direct {
		p.endHeaders(t, filter.Response, false)
		p.endData(t, filter.Response, &b, true)
		return
	}
	p.pushHeaders(t, filter.Response, r.Body == "")
	if r.Body != "" && !p.over {
		p.pushData(t, filter.Response, &b, true)
	}
}

func statusText(status int) string {
	return string([]byte{'0' + byte(status/100), '0' + byte(status/10%10), '0' + byte(status%10)})
}

// Reset implements filter.Control.
func (p *pipe) Reset(*stream.Turn, *stream.Fault) { p.x.reset, p.over = true, true }

// Pause implements filter.Control.
func (p *pipe) Pause(d filter.Direction) filter.Resume {
	s := &p.side[d]
	s.seq++
	return filter.Resume{Target: p.target(), Seq: s.seq<<1 | uint32(d)}
}

// Route implements filter.Routing.
func (p *pipe) Route() filter.Route { return nil }

// ClearRouteCache implements filter.Routing.
func (p *pipe) ClearRouteCache() {}

// RouteConfig implements filter.Routing.
func (p *pipe) RouteConfig() any { return p.x.p.route }
