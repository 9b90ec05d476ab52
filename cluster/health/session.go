package health

import (
	"net/netip"
	"sync"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/internal/task"
)

func addrPort(a stream.Addr, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.IP.Addr(), port)
}

// outcome is how a check went.
type outcome uint8

const (
	good outcome = iota
	degraded
	bad       // the host says so
	retriable // the host says so, and one such answer is not enough
	network   // there was no answer
	timeout
	passive // a response to a request said so
)

// probe is a check that is under way.
type probe interface {
	// cancel ends it; its result, if there still is one, is not looked at.
	cancel()
}

// session is the checks of one host.
type session struct {
	// Set when it is made, never changed.
	c      *Checker
	host   *host.Host
	target *host.Host

	mu               sync.Mutex // guards below
	timer            *time.Timer
	probe            probe
	number           uint32 // of the check that is under way, or was last
	running          bool
	first            bool // there was no result yet
	ended            bool
	healthy, failing uint32 // results in a row
}

// begin starts the first check.
func (s *session) begin() {
	if j := s.c.conf.initialJitter; j > 0 {
		s.after(time.Duration(s.c.env.Random() % uint64(j)))
		return
	}
	s.check()
}

func (s *session) after(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.timer = time.AfterFunc(d, func() { task.Go("health check", s.check, nil) })
}

// check begins a check as soon as there is room for one.
func (s *session) check() {
	s.c.env.Turnstile.enter(s.run)
}

func (s *session) leave() {
	if next := s.c.env.Turnstile.leave(); next != nil {
		task.Go("health check", next, nil)
	}
}

func (s *session) run() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		s.leave()
		return
	}
	s.number++
	n := s.number
	s.running = true
	s.c.env.Stats.Attempt.Inc()
	s.timer = time.AfterFunc(s.c.conf.timeout, func() {
		task.Go("health check", func() { s.finish(n, timeout) }, nil)
	})
	s.mu.Unlock()
	p := s.probeFor(n)
	s.mu.Lock()
	late := !s.running || s.number != n
	if !late {
		s.probe = p
	}
	s.mu.Unlock()
	if late {
		p.cancel()
	}
}

func (s *session) probeFor(n uint32) probe {
	if s.c.conf.Kind == TCP {
		return startTCP(s, n)
	}
	return startHTTP(s, n)
}

// report takes the result of a check; it may be called inside a stream.
func (s *session) report(n uint32, o outcome) {
	task.Go("health check", func() { s.finish(n, o) }, nil)
}

// finish ends a check with its result, once.
func (s *session) finish(n uint32, o outcome) {
	s.mu.Lock()
	if !s.running || s.number != n {
		s.mu.Unlock()
		return
	}
	s.running = false
	p := s.probe
	s.probe = nil
	s.timer.Stop()
	s.mu.Unlock()
	if p != nil {
		p.cancel()
	}
	s.leave()
	s.conclude(o)
}

// passive is a failure that a response to a request has told of.
func (s *session) passive() {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if !ended {
		s.judge(passive)
	}
}

// conclude judges a host by the result of a check and plans the next one.
func (s *session) conclude(o outcome) {
	s.mu.Lock()
	first, ended := s.first, s.ended
	s.mu.Unlock()
	if ended {
		return
	}
	pending := s.judge(o)
	s.after(s.c.gap(o == good || o == degraded, pending))
	if first {
		s.c.pass()
	}
}

// judge takes a result; it tells whether the host is about to change
// (ActiveHealthCheckSession::handleSuccess, setUnhealthy).
func (s *session) judge(o outcome) (pending bool) {
	s.mu.Lock()
	ok := o == good || o == degraded
	var changed bool
	if ok {
		changed, pending = s.succeed(o == degraded)
	} else {
		changed, pending = s.fail(o)
	}
	failed := !ok && changed
	if s.host.Has(host.PendingActiveHC) {
		s.host.Clear(host.PendingActiveHC)
		changed = true
	}
	s.first = false
	s.mu.Unlock()
	if changed {
		s.c.env.Changed(s.host, failed)
	}
	s.c.env.Checked(s.host, ok && !s.host.Has(host.FailedActiveHC))
	return pending
}

func (s *session) succeed(isDegraded bool) (changed, pending bool) {
	st := s.c.env.Stats
	st.Success.Inc()
	s.failing = 0
	if s.host.Has(host.ExcludedImmediateHC) {
		s.host.Clear(host.ExcludedImmediateHC)
		changed = true
	}
	if s.host.Has(host.FailedActiveHC) {
		// The first result counts at once, so that a start does not take long.
		if s.healthy++; s.first || s.healthy >= s.c.conf.healthyThreshold {
			s.host.Clear(host.FailedActiveHC | host.ActiveHCTimeout)
			st.Healthy.Inc()
			changed = true
		} else {
			pending = true
		}
	}
	if isDegraded != s.host.Has(host.DegradedActiveHC) {
		if isDegraded {
			s.host.Set(host.DegradedActiveHC)
			st.Degraded.Inc()
		} else {
			s.host.Clear(host.DegradedActiveHC)
			st.Degraded.Dec()
		}
		changed = changed || !pending
	}
	return changed, pending
}

func (s *session) fail(o outcome) (changed, pending bool) {
	st := s.c.env.Stats
	st.Failure.Inc()
	switch o {
	case network, timeout:
		st.NetworkFailure.Inc()
	case passive:
		st.PassiveFailure.Inc()
	default:
	}
	s.healthy = 0
	if !s.host.Has(host.FailedActiveHC) {
		if o == network || o == timeout || o == retriable {
			s.failing++
		}
		if o == bad || o == passive || s.failing >= s.c.conf.unhealthyThreshold {
			s.host.Set(host.FailedActiveHC)
			st.Healthy.Dec()
			changed = true
		} else {
			pending = true
		}
	}
	if o == timeout && s.host.Has(host.FailedActiveHC) {
		s.host.Set(host.ActiveHCTimeout)
	} else {
		s.host.Clear(host.ActiveHCTimeout)
	}
	return changed, pending
}

// end ends the checks of the host.
func (s *session) end() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	p, ran, first := s.probe, s.running, s.first
	s.probe, s.running = nil, false
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	if p != nil {
		p.cancel()
	}
	if ran {
		s.leave()
	}
	if first {
		s.c.pass()
	}
	if !s.host.Has(host.FailedActiveHC) {
		s.c.env.Stats.Healthy.Dec()
	}
	if s.host.Has(host.DegradedActiveHC) {
		s.c.env.Stats.Degraded.Dec()
	}
	s.target.Drain(true)
}
