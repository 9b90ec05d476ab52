package tcpproxy

import (
	"sync"
	"time"

	"sidecar/api/stream"
)

// Reasons for which a timer ended a session.
const (
	idleTimeout = iota + 1
	durationTimeout
)

// timer calls a function again and again, until that returns 0 or it is stopped. Stop waits for a
// call that runs.
type timer struct {
	mu      sync.Mutex // guards below, and is held by calls
	t       *time.Timer
	stopped bool
}

// startTimer calls next after d, then after as long as it says each time.
func startTimer(d time.Duration, next func() time.Duration) *timer {
	x := &timer{}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.t = time.AfterFunc(d, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.stopped {
			return
		}
		if d := next(); d > 0 {
			x.t.Reset(d)
		}
	})
	return x
}

func (x *timer) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stopped = true
	x.t.Stop()
}

// watch ends the session when nothing was moved for the idle timeout, or when it has lasted too long.
// The function it returns stops it.
func (s *session) watch() (stop func()) {
	idle, most := s.cfg.idleTimeout, s.maxDuration
	if idle == 0 && most == 0 {
		return func() {}
	}
	left := func() time.Duration {
		d := time.Duration(1<<62 - 1)
		if idle > 0 {
			d = idle - time.Since(time.Unix(0, s.active.Load()))
		}
		if most > 0 {
			d = min(d, most-time.Since(s.info.Start))
		}
		return d
	}
	return startTimer(max(left(), 1), func() time.Duration {
		d := left()
		if d > 0 {
			return d
		}
		if most > 0 && time.Since(s.info.Start) >= most {
			s.timedOut.Store(durationTimeout)
		} else {
			s.timedOut.Store(idleTimeout)
		}
		s.close()
		return 0
	}).stop
}

// logPeriodically writes the log at the flush interval. The function it returns stops it.
func (s *session) logPeriodically() (stop func()) {
	d := s.cfg.logInterval
	if d == 0 || len(s.cfg.logs) == 0 {
		return func() {}
	}
	return startTimer(d, func() time.Duration {
		r := *s.info
		s.log(&r, stream.LogTCPPeriodic)
		return d
	}).stop
}
