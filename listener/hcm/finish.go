package hcm

import (
	"runtime/debug"

	"sidecar/api/filter"
	"sidecar/api/stream"
)

// finish ends the stream: its record is completed and read once by all who want it, filters let go,
// the codec stream is released and the object goes back to its pool. Nothing of s may be used after.
func (s *Stream) finish(t *stream.Turn) {
	if s.finishedAll {
		return
	}
	s.finishedAll = true
	s.info.Complete = s.since(t)
	if s.enc != nil {
		s.info.DownstreamWire = s.enc.Traffic()
	}
	if td, ok := s.terminal.(filter.Logger); ok {
		td.OnLog(t, &s.info)
	}
	s.info.LogType = stream.LogDownstreamEnd
	for i := range s.slots {
		if l, ok := s.slots[i].f.(filter.Logger); ok {
			l.OnLog(t, &s.info)
		}
	}
	s.counted = true
	s.cfg.log(s)
	s.conn.countFinished(t, s)
	conn, abusive := s.conn, s.conn.noteEnd(&s.info)
	if d, ok := s.terminal.(filter.Destroyer); ok {
		d.OnDestroy(t)
	}
	for i := range s.slots {
		if d, ok := s.slots[i].f.(filter.Destroyer); ok {
			d.OnDestroy(t)
		}
	}
	s.recycle(t)
	if abusive {
		conn.codec.Close(t)
	}
}

// onPanic resets a stream one of whose callbacks has panicked. Others go on: nothing that they use is
// held while a filter runs. A panic while the stream is being ended leaves its filters out.
func (s *Stream) onPanic(t *stream.Turn, value any) {
	if s.conn == nil {
		return // after its end
	}
	if s.cfg.bugs != nil {
		s.cfg.bugs.EnvoyBug.Inc()
	}
	if s.cfg.log0 != nil {
		s.cfg.log0.Error("a filter panicked; its stream was reset", "panic", value, "stack", string(debug.Stack()))
	}
	if !s.broken && !s.finishedAll {
		s.broken = true
		s.reset(t, &stream.Fault{
			Details: "filter_panic", Flag: stream.LocalReset, Reason: stream.ReasonLocalReset,
		})
		s.scheduleFinish(t)
		return
	}
	s.broken = true
	if s.enc != nil {
		s.enc.Reset(t, nil)
	}
	if !s.counted {
		s.counted = true
		s.cfg.log(s)
		s.conn.countFinished(t, s)
	}
	s.recycle(t)
}

// recycle empties the stream and gives it back. The monitor's generation ends first, so that
// nothing posted for this use can reach the next.
func (s *Stream) recycle(t *stream.Turn) {
	s.stopTimers()
	s.mon.Retire()
	enc, conn, broken, pool := s.enc, s.conn, s.broken, s.cfg.streams
	for i := range s.slots {
		s.slots[i].clear()
	}
	s.data[0].Reset()
	s.data[1].Reset()
	s.localBuf.Reset()
	s.localResponse.Reset()
	s.addedTrailers[0].Reset()
	s.addedTrailers[1].Reset()
	scratch, slots := s.scratch, s.slots
	s.enc, s.conn, s.cfg, s.table, s.entry, s.terminal = nil, nil, nil, nil, nil, nil
	s.req, s.resp = idle, idle
	s.pauses = [2]pauseReason{}
	s.finishedAll, s.headSent, s.replying, s.closeAfter = false, false, false, false
	s.upgraded, s.isGRPC, s.isHead, s.requestWhole, s.answered = false, false, false, false, false
	s.entryKnown, s.finishing, s.broken, s.counted = false, false, false, false
	s.reached = 0
	s.info = stream.Info{}
	s.scratch, s.slots = scratch[:0], slots[:0]
	if !broken {
		pool.Put(s)
	}
	if enc != nil {
		conn.streamGone(t)
		enc.Release(t)
	}
}
