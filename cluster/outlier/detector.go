package outlier

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/cluster/host"
	"sidecar/internal/task"
)

// Env is what a detector works on.
type Env struct {
	Stats *Stats
	// Random must be safe for concurrent use.
	Random func() uint64
	// Runtime looks a key up; nil knows none.
	Runtime func(key string) (uint64, bool)
	// Members is the number of hosts of the cluster.
	Members func() int
	// Changed is called after hosts were ejected or taken back, failed with those that were ejected. It
	// is called on a goroutine of the detector, without locks.
	Changed func(failed []*host.Host)
}

// Detector watches the hosts of one cluster. Its methods may be called from any goroutine.
type Detector struct {
	// Set by New, never changed.
	conf *Config
	env  Env

	armed atomic.Bool // the timer runs

	mu       sync.Mutex // guards below
	monitors map[*host.Host]*monitor
	timer    *time.Timer
	active   int // hosts that are ejected
	summary  [2]Summary
	stopped  bool
}

// Summary is what the success rates of an interval came to; both are -1 without enough hosts.
type Summary struct{ Average, Threshold float64 }

// Unknown is the summary without enough hosts.
//
//nolint:gochecknoglobals // a constant
var Unknown = Summary{unknownRate, unknownRate}

// New makes a detector.
func New(conf *Config, env Env) *Detector {
	d := &Detector{conf: conf, env: env, monitors: map[*host.Host]*monitor{}}
	d.summary = [2]Summary{Unknown, Unknown}
	return d
}

// Config returns the configuration.
func (d *Detector) Config() *Config { return d.conf }

// get returns a number of the configuration, or the runtime's in its place.
func (d *Detector) get(s setting) uint64 {
	if d.env.Runtime != nil {
		if v, ok := d.env.Runtime(runtimeKeys[s]); ok {
			return v
		}
	}
	return d.conf.values[s]
}

func (d *Detector) duration(s setting) time.Duration {
	return time.Duration(min(d.get(s), math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

// Put takes the result of a request to a host. code is the status of the response, or that which a
// failure stands for; 0 if there is none.
func (d *Detector) Put(h *host.Host, r Result, code int) {
	m, ok := h.PeekWatch().(*monitor)
	if !ok {
		if m = d.watch(h); m == nil {
			return
		}
	}
	if !d.armed.Load() {
		d.arm()
	}
	if !d.conf.splitLocal {
		if code == 0 {
			code = r.code()
		}
		if code != 0 {
			d.answered(m, code)
		}
		return
	}
	switch r {
	case Connected, ConnectedFinal:
		d.reached(m)
	case Timeout, ConnectFailed:
		d.failedHere(m)
	case RequestFailed:
		d.answered(m, codeOr(code, 500))
	case RequestSuccess:
		d.answered(m, codeOr(code, 200))
		d.reached(m)
	}
}

func codeOr(code, def int) int {
	if code == 0 {
		return def
	}
	return code
}

// watch makes the monitor of a host; nil if the host has left the cluster.
func (d *Detector) watch(h *host.Host) *monitor {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped || h.Removed() {
		return nil
	}
	m, _ := h.Watch(func() any { return newMonitor(h) }).(*monitor)
	d.monitors[h] = m
	return m
}

// answered counts a status (DetectorHostMonitorImpl::putHttpResponseCode).
func (d *Detector) answered(m *monitor, code int) {
	m.rates[external].total.Add(1)
	if code < 500 || code >= 600 {
		m.rates[external].success.Add(1)
		clearCounter(&m.failures5xx)
		clearCounter(&m.failuresGateway)
		return
	}
	if code >= 502 && code <= 504 {
		d.inRow(m, &m.failuresGateway, consecutiveGateway, byGateway)
	} else {
		clearCounter(&m.failuresGateway)
	}
	d.inRow(m, &m.failures5xx, consecutive5xx, by5xx)
}

func (d *Detector) reached(m *monitor) {
	m.rates[local].total.Add(1)
	m.rates[local].success.Add(1)
	clearCounter(&m.failuresLocal)
}

func (d *Detector) failedHere(m *monitor) {
	m.rates[local].total.Add(1)
	d.inRow(m, &m.failuresLocal, consecutiveLocal, byLocal)
}

// inRow counts one more failure in a row; the one that makes the number full sets off an ejection.
func (d *Detector) inRow(m *monitor, c *atomic.Uint32, limit setting, why cause) {
	if uint64(c.Add(1)) != d.get(limit) {
		return
	}
	task.Go("outlier ejection", func() { d.onRow(m, c, why) }, nil)
}

func (d *Detector) onRow(m *monitor, c *atomic.Uint32, why cause) {
	d.mu.Lock()
	var failed []*host.Host
	if d.monitors[m.host] == m && !m.host.Has(host.FailedOutlier) {
		d.env.Stats.detected(why).Inc()
		failed = d.eject(failed, m, why)
		if why == by5xx {
			d.env.Stats.Consecutive5xx.Inc()
		}
		c.Store(0)
	}
	d.mu.Unlock()
	if len(failed) > 0 {
		d.env.Changed(failed)
	}
}

// eject ejects a host, if the number of those that are and the share to be enforced allow it; the
// caller holds mu (DetectorImpl::ejectHost).
func (d *Detector) eject(failed []*host.Host, m *monitor, why cause) []*host.Host {
	if m.host.Has(host.FailedOutlier) {
		return failed // by another of the statistics
	}
	s := d.env.Stats
	most := float64(min(100, d.get(maxEjectionPercent)))
	share := 100 * float64(d.active+1) / float64(max(1, d.env.Members()))
	if share > most && !(d.conf.alwaysOne && d.active == 0) {
		s.Overflow.Inc()
		return failed
	}
	if why == by5xx || why == bySuccessRate {
		s.Total.Inc()
	}
	if d.env.Random()%100 >= d.get(enforcing[why]) {
		return failed
	}
	d.setActive(d.active + 1)
	s.EnforcedTotal.Inc()
	s.enforced(why).Inc()
	m.host.Set(host.FailedOutlier)
	m.ejectedAt = time.Now()
	m.times++
	base, limit := d.duration(baseEjectionMs), d.duration(maxEjectionMs)
	m.jitter = d.randomJitter()
	if time.Duration(m.backoff)*base < limit+base {
		m.backoff++
	}
	return append(failed, m.host)
}

func (d *Detector) randomJitter() time.Duration {
	return time.Duration(d.env.Random()%(d.get(jitterMs)+1)) * time.Millisecond
}

func (d *Detector) setActive(n int) {
	d.active = n
	d.env.Stats.Active.Set(int64(n))
}

// uneject takes a host back; the caller holds mu.
func (d *Detector) uneject(m *monitor) {
	d.setActive(d.active - 1)
	m.host.Clear(host.FailedOutlier)
	m.failures5xx.Store(0)
	m.failuresGateway.Store(0)
	m.failuresLocal.Store(0)
}

// Succeeded tells of an active health check that a host has passed: it ends an ejection.
func (d *Detector) Succeeded(h *host.Host) {
	if !d.conf.uneject || !h.Has(host.FailedOutlier) {
		return
	}
	d.mu.Lock()
	m := d.monitors[h]
	back := m != nil && h.Has(host.FailedOutlier)
	if back {
		d.uneject(m)
	}
	d.mu.Unlock()
	if back {
		d.env.Changed(nil)
	}
}

// Degraded tells of a response with x-envoy-degraded.
func (d *Detector) Degraded(h *host.Host) {
	if !d.conf.degraded || h.Has(host.DegradedOutlier) {
		return
	}
	m, ok := h.PeekWatch().(*monitor)
	if !ok {
		if m = d.watch(h); m == nil {
			return
		}
	}
	task.Go("outlier degradation", func() { d.degrade(m) }, nil)
}

func (d *Detector) degrade(m *monitor) {
	d.mu.Lock()
	degraded := d.monitors[m.host] == m && !m.host.Has(host.DegradedOutlier)
	if degraded {
		d.env.Stats.DetectedDegradation.Inc()
		m.host.Set(host.DegradedOutlier)
		m.degradedAt, m.degradedJitter = time.Now(), d.randomJitter()
		base, limit := d.duration(baseEjectionMs), d.duration(maxEjectionMs)
		if time.Duration(m.degradedBackoff)*base < limit+base {
			m.degradedBackoff++
		}
	}
	d.mu.Unlock()
	d.arm()
	if degraded {
		d.env.Changed(nil)
	}
}

// Remove forgets hosts that have left the cluster; they are marked as removed already.
func (d *Detector) Remove(hosts []*host.Host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range hosts {
		if d.monitors[h] == nil {
			continue
		}
		if h.Has(host.FailedOutlier) {
			d.setActive(d.active - 1)
		}
		delete(d.monitors, h)
	}
}

// Summaries returns what the last interval's rates came to: of all requests, or those that failed at
// the host, and of those that failed on our side.
func (d *Detector) Summaries() (external, localOrigin Summary) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.summary[0], d.summary[1]
}

// Stop ends the detector's timer.
func (d *Detector) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	if d.timer != nil {
		d.timer.Stop()
	}
}
