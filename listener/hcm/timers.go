package hcm

import (
	"math"
	"sync/atomic"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stream"
)

// The deadlines of a stream; those of the terminal filter come behind them.
const (
	timerHeaders  = iota // request_headers_timeout
	timerRequest         // request_timeout
	timerDuration        // max_stream_duration
	timerTerminal
	numTimers = timerTerminal + filter.MaxDeadlines
)

// timers holds the deadlines of a stream. Setting one is a store: the one runtime timer is left to
// fire too early and then set for what is next (datapath.md §6: lazy timers). It outlives the
// stream's uses with the pooled object.
type timers struct {
	timer    *time.Timer
	gen      atomic.Uint32 // the use that a firing timer is for
	live     atomic.Bool
	missed   atomic.Bool // the timer fired between two uses
	armedFor int64
	at       [numTimers]int64 // Turn.Nano; 0 is none
	idle     int64            // idle timeout, 0 for none
	active   int64            // the last activity
}

func (x *timers) init(s *Stream) {
	x.timer = time.AfterFunc(time.Hour, func() {
		if !x.live.Load() {
			x.missed.Store(true)
			if !x.live.Load() {
				return // the next use looks at missed after it has set live
			}
		}
		gen := x.gen.Load()
		stream.Do(func(t *stream.Turn) {
			s.mon.Post(t, gen, stream.Event{To: s, Kind: stream.EventTimer})
		})
	})
	x.timer.Stop()
}

// startTimers begins the deadlines of a new use; it is the last thing of begin, since a timer left
// over from an earlier use may fire from here on.
func (s *Stream) startTimers(t *stream.Turn) {
	x := &s.timers
	x.at = [numTimers]int64{}
	x.idle = int64(s.cfg.streamIdleTimeout)
	x.active = t.Nano()
	if x.idle > 0 {
		x.ensure(x.active, x.active+x.idle)
	}
	s.arm(t, timerHeaders, s.cfg.requestHeadersTimeout)
	x.gen.Store(s.mon.Gen())
	x.live.Store(true)
	if x.missed.Load() && x.missed.Swap(false) {
		// By the clock of this batch it may not have been due yet, and so was left to fire.
		x.timer.Reset(0)
	}
}

// stopTimers ends the use. The timer stays as it is: the next use most likely wants it no earlier.
func (s *Stream) stopTimers() { s.timers.live.Store(false) }

// touch notes activity, which puts the idle timeout off.
func (s *Stream) touch(t *stream.Turn) { s.timers.active = t.Nano() }

// arm sets deadline k to d from now; 0 takes it away.
func (s *Stream) arm(t *stream.Turn, k int, d time.Duration) {
	x := &s.timers
	if d <= 0 {
		x.at[k] = 0
		return
	}
	now := t.Nano()
	x.at[k] = now + int64(d)
	x.ensure(now, x.at[k])
}

func (s *Stream) disarm(k int) { s.timers.at[k] = 0 }

// ensure makes the timer fire no later than at.
func (x *timers) ensure(now, at int64) {
	if x.armedFor > now && x.armedFor <= at {
		return
	}
	x.armedFor = at
	x.timer.Reset(time.Duration(max(at-now, 0)))
}

// onTimer handles the deadline that has passed, if one has, and sets the timer for the next.
func (s *Stream) onTimer(t *stream.Turn) {
	x := &s.timers
	t.Fresh()
	now := t.Nano()
	x.armedFor = 0 // whatever it was set for: it may have been fired early
	due, first := -1, int64(math.MaxInt64)
	for k := range x.at {
		if at := x.at[k]; at != 0 && at < first {
			due, first = k, at
		}
	}
	idle := int64(math.MaxInt64)
	if x.idle > 0 {
		idle = x.active + x.idle
	}
	switch {
	case due >= 0 && first <= now && first <= idle:
		x.at[due] = 0
		s.onDeadline(t, due)
	case idle <= now:
		x.idle = 0
		s.onStreamIdle(t)
	}
	if s.finishing {
		return
	}
	next := idle
	if x.idle == 0 {
		next = math.MaxInt64
	}
	for _, at := range x.at {
		if at != 0 {
			next = min(next, at)
		}
	}
	if next != math.MaxInt64 {
		x.ensure(now, next)
	}
}

func (s *Stream) onDeadline(t *stream.Turn, k int) {
	switch k {
	case timerHeaders:
		s.cfg.stats.RqHeaderTimeout.Inc()
		s.reply(t, &headersTimeout)
	case timerRequest:
		s.cfg.stats.RqTimeout.Inc()
		s.reply(t, &requestTimeout)
	case timerDuration:
		s.cfg.stats.RqMaxDuration.Inc()
		s.reply(t, &durationTimeout)
	default:
		if h, ok := s.terminal.(filter.DeadlineHandler); ok {
			h.OnDeadline(t, uint8(k-timerTerminal))
		}
	}
}

// onStreamIdle ends a stream on which nothing has moved for too long: 408 while the request is
// incomplete, 504 while the response is awaited.
func (s *Stream) onStreamIdle(t *stream.Turn) {
	s.cfg.stats.RqIdleTimeout.Inc()
	s.info.Flags |= stream.StreamIdleTimeout
	if s.req >= ended {
		s.reply(t, &idleGateway)
		return
	}
	s.reply(t, &idleRequest)
}

// Arm implements filter.Terminal.
func (sl *slot) Arm(t *stream.Turn, which uint8, d time.Duration) {
	sl.s.arm(t, timerTerminal+int(which), d)
}
