package h2

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"sidecar/api/stream"
)

// flood counts what a peer may send only so often.
type flood struct {
	empty         uint32 // consecutive frames with empty payload
	priority      uint64
	windowUpdates uint64
	resets        bucket
}

// frame handles one whole frame.
func (c *conn) frame(t *stream.Turn, f frame) {
	if c.open.id != 0 && (f.kind != frameContinuation || f.id != c.open.id) {
		c.fail(t, codeProtocol, "unexpected non-CONTINUATION frame or stream_id is invalid")
		return
	}
	if !c.settled && (f.kind != frameSettings || f.flags&flagAck != 0) {
		c.fail(t, codeProtocol, "SETTINGS expected")
		return
	}
	switch f.kind {
	case frameData:
		c.onData(t, f)
	case frameHeaders:
		c.onHeaders(t, f)
	case framePriority:
		c.onPriority(t, f)
	case frameReset:
		c.onReset(t, f)
	case frameSettings:
		c.onSettings(t, f)
	case framePushPromise:
		c.drop(t)
	case framePing:
		c.onPing(t, f)
	case frameGoAway:
		c.onGoAway(t, f)
	case frameWindowUpdate:
		c.onWindowUpdate(t, f)
	case frameContinuation:
		c.onContinuation(t, f)
	}
}

// emptyFrame counts a frame without payload or end, and ends the connection of a peer that sends too
// many of them.
func (c *conn) emptyFrame(t *stream.Turn) bool {
	if c.flood.empty++; c.flood.empty <= c.opt.MaxEmptyFrames {
		return false
	}
	c.opt.Stats.EmptyFramesFlood.Inc()
	c.flooded(t, "http2.inbound_empty_frames_flood")
	return true
}

// isIdle tells a stream that nobody has begun yet. The caller holds c.mu.
func (c *conn) isIdle(id uint32) bool {
	if c.server != nil {
		return id&1 == 0 || id > c.lastRead
	}
	return id&1 == 0 || id >= c.nextID
}

func (c *conn) onPriority(t *stream.Turn, f frame) {
	if len(f.p) != 5 {
		c.fail(t, codeFrameSize, "PRIORITY: length")
		return
	}
	// What it says doesn't matter (RFC 9113 section 5.3.2).
	c.flood.priority++
	c.mu.Lock()
	allowed := uint64(c.opt.MaxPriorityPerStream) * (1 + c.opened)
	c.mu.Unlock()
	if c.flood.priority > allowed {
		c.opt.Stats.PriorityFlood.Inc()
		c.flooded(t, "codec_error:Too_many_PRIORITY_frames")
	}
}

// offence is the fault of a stream for which its connection ends.
func (c *conn) offence(details string) *stream.Fault {
	f := c.protocolFault(details)
	f.Close = true
	return f
}

// tell has a stream told of its end, once. The caller holds c.mu.
func (c *conn) tell(s *Stream, f *stream.Fault, a *after) {
	if !s.told && !s.released {
		s.told = true
		a.notify = append(a.notify, note{s.target, stream.Event{Kind: stream.EventReset, Fault: f}})
	}
}

// streamError resets one stream for what the peer sent on it.
func (c *conn) streamError(t *stream.Turn, id uint32, why code, details string) {
	var a after
	c.mu.Lock()
	s := c.streams[id]
	if s == nil {
		c.opt.Stats.TxReset.Inc()
		appendWord(c.w.Begin(), frameReset, id, uint32(why))
		c.w.End(t)
		tooMany := c.controlled()
		c.mu.Unlock()
		if tooMany {
			c.cutOff(t)
		}
		return
	}
	c.tell(s, c.protocolFault(details), &a)
	c.resetStream(t, s, why, &a)
	c.mu.Unlock()
	a.run(t, c)
}

func (c *conn) onReset(t *stream.Turn, f frame) {
	switch {
	case len(f.p) != 4:
		c.fail(t, codeFrameSize, "RST_STREAM: length")
		return
	case f.id == 0:
		c.drop(t)
		return
	}
	why := code(binary.BigEndian.Uint32(f.p))
	var a after
	c.mu.Lock()
	s := c.streams[f.id]
	idle := s == nil && c.isIdle(f.id)
	if s != nil {
		c.opt.Stats.RxReset.Inc()
		c.peerReset(s, why, &a)
	}
	c.mu.Unlock()
	if idle {
		c.drop(t)
		return
	}
	a.run(t, c)
	if c.server != nil && !c.flood.resets.take(t.Nano(), c.opt.ResetBurst, c.opt.ResetRate) {
		c.fail(t, codeInternal, "stream reset rate is too high")
	}
}

// peerReset ends a stream that the peer has reset. A peer that has sent all and only wants no more is
// no failure. The caller holds c.mu.
func (c *conn) peerReset(s *Stream, why code, a *after) { c.endedBy(s, why, c.resetFault(why), a) }

// endedBy is peerReset with the fault to tell the stream.
func (c *conn) endedBy(s *Stream, why code, f *stream.Fault, a *after) {
	s.dropOut(c)
	s.whole = true
	quiet := s.readEnd && c.client != nil && (why == codeNone || s.sentEnd)
	if !quiet && !s.told && !s.released {
		s.told = true
		if !s.delivering {
			s.dropIn(c)
		}
		a.notify = append(a.notify, note{s.target, stream.Event{Kind: stream.EventReset, Fault: f}})
	}
	s.readEnd, s.sentEnd = true, true
	c.remove(s, a)
}

func (c *conn) onSettings(t *stream.Turn, f frame) {
	ack := f.flags&flagAck != 0
	switch {
	case ack && len(f.p) != 0 || len(f.p)%6 != 0:
		c.fail(t, codeFrameSize, "SETTINGS: length")
		return
	case f.id != 0:
		c.drop(t)
		return
	case ack:
		c.acked = true
		c.dec.Confirm()
		c.mu.Lock()
		if c.unacked--; c.unacked <= 0 {
			c.slack = 0
		}
		c.mu.Unlock()
		return
	}
	first := !c.settled
	c.settled = true
	var a after
	c.mu.Lock()
	why := codeNone
	for p := f.p; len(p) > 0 && why == codeNone; p = p[6:] {
		why = c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:]), t, &a)
	}
	if why != codeNone {
		c.mu.Unlock()
		c.drop(t)
		return
	}
	a.limit = a.limit || first
	appendFrame(c.w.Begin(), frameSettings, flagAck, 0, nil)
	c.w.End(t)
	tooMany := c.controlled()
	c.pump(t, &a)
	c.mu.Unlock()
	a.run(t, c)
	if tooMany {
		c.cutOff(t)
	}
}

// cutOff closes the connection of a peer that makes us send and does not read.
func (c *conn) cutOff(*stream.Turn) {
	c.local.Store(true)
	c.closing.Store(true)
	c.w.Close()
}

// setting applies one parameter. The caller holds c.mu.
func (c *conn) setting(id uint16, v uint32, t *stream.Turn, a *after) code {
	switch id {
	case settingTableSize:
		c.enc.SetPeerTableSize(v)
	case settingEnablePush:
		if v > 1 || v == 1 && c.client != nil {
			return codeProtocol
		}
	case settingMaxStreams:
		c.peerMax = v
		a.limit = true
	case settingInitialWindow:
		if v > maxWindow {
			return codeFlowControl
		}
		d := int64(v) - c.peerWin
		c.peerWin = int64(v)
		for _, s := range c.streams {
			if s.sendWin += d; s.sendWin > maxWindow {
				c.tell(s, c.resetFault(codeFlowControl), a)
				c.resetStream(t, s, codeFlowControl, a)
				continue
			}
			s.list()
		}
	case settingMaxFrame:
		if v < minMaxFrame || v > maxMaxFrame {
			return codeProtocol
		}
		c.maxFrame = min(int(v), minMaxFrame)
	case settingConnectProtocol:
		if v > 1 {
			return codeProtocol
		}
		c.extended = v == 1
	}
	return codeNone
}

func (c *conn) onPing(t *stream.Turn, f frame) {
	switch {
	case len(f.p) != 8:
		c.fail(t, codeFrameSize, "PING: length")
		return
	case f.id != 0:
		c.drop(t)
		return
	case f.flags&flagAck != 0:
		c.keep.acked()
		return
	}
	c.mu.Lock()
	appendFrame(c.w.Begin(), framePing, flagAck, 0, f.p)
	c.w.End(t)
	tooMany := c.controlled()
	c.mu.Unlock()
	if tooMany {
		c.cutOff(t)
	}
}

func (c *conn) onGoAway(t *stream.Turn, f frame) {
	switch {
	case len(f.p) < 8:
		c.fail(t, codeFrameSize, "GOAWAY: length")
		return
	case f.id != 0:
		c.drop(t)
		return
	}
	last := binary.BigEndian.Uint32(f.p) & maxStreamID
	if c.client == nil {
		return
	}
	var a after
	c.mu.Lock()
	if last > c.lastGone {
		c.mu.Unlock()
		c.drop(t)
		return
	}
	a.away = !c.gotAway
	c.gotAway, c.lastGone = true, last
	for id, s := range c.streams {
		if id > last {
			c.endedBy(s, codeRefused, c.unseenFault(), &a)
		}
	}
	if c.idle() {
		a.shut = true
	}
	c.mu.Unlock()
	a.run(t, c)
}

func (c *conn) onWindowUpdate(t *stream.Turn, f frame) {
	if len(f.p) != 4 {
		c.fail(t, codeFrameSize, "WINDOW_UPDATE: length")
		return
	}
	n := int64(binary.BigEndian.Uint32(f.p) & maxWindow)
	var a after
	c.mu.Lock()
	c.flood.windowUpdates++
	if c.flood.windowUpdates > 5+2*(c.opened+uint64(c.opt.MaxWindowUpdatePerData)*c.dataSent) {
		c.mu.Unlock()
		c.opt.Stats.WindowUpdateFlood.Inc()
		c.flooded(t, "codec_error:Too_many_WINDOW_UPDATE_frames")
		return
	}
	good, id := true, f.id
	s := c.streams[id]
	switch {
	case id == 0 && n == 0, id != 0 && s == nil && c.isIdle(id):
		good = false
	case id == 0:
		c.sendWin += n
		good = c.sendWin <= maxWindow
	case s == nil:
		// It has ended; more window changes nothing.
	default:
		s.sendWin += n
		if good = n > 0 && s.sendWin <= maxWindow; good {
			s.list()
			break
		}
		c.tell(s, c.offence(unknownError), &a)
	}
	if good {
		c.pump(t, &a)
	}
	c.mu.Unlock()
	if !good {
		c.drop(t)
	}
	a.run(t, c)
}

// onReadError handles the end of what the peer sends, or of the socket; false ends the reader.
func (c *conn) onReadError(t *stream.Turn, err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) && c.server != nil && c.closing.Load() {
		if n := c.server.sopt.DelayedCloseExpired; n != nil {
			n.Inc()
		}
		return false
	}
	f := c.goneFault()
	if !errors.Is(err, io.EOF) {
		f.Err = err
	}
	c.w.Close()
	if c.server != nil && c.open.id > c.lastRead {
		c.server.unread(t, c.open.id) // it had begun, as its line in the log says
	}
	c.tellAll(t, f)
	return false
}

// bucket is a token bucket.
type bucket struct {
	tokens uint64
	at     int64 // when it was filled, in seconds
	begun  bool
}

// take takes a token; false means that there is none. A burst of 0 is no limit.
func (b *bucket) take(now int64, burst, rate uint64) bool {
	if burst == 0 {
		return true
	}
	s := now / 1e9
	if !b.begun {
		b.begun, b.tokens, b.at = true, burst, s
	}
	if s > b.at {
		b.tokens = min(burst, b.tokens+uint64(s-b.at)*rate)
		b.at = s
	}
	if b.tokens == 0 {
		return false
	}
	b.tokens--
	return true
}
