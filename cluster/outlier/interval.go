package outlier

import (
	"math"
	"time"

	"sidecar/cluster/host"
	"sidecar/internal/task"
)

// arm starts the timer of the next interval, unless it runs.
func (d *Detector) arm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped || d.armed.Load() {
		return
	}
	d.armed.Store(true)
	every := max(d.duration(intervalMs), time.Millisecond)
	if d.timer == nil {
		d.timer = time.AfterFunc(every, func() { task.Go("outlier interval", d.interval, nil) })
		return
	}
	d.timer.Reset(every)
}

// interval looks at what the hosts did since the last time (DetectorImpl::onIntervalTimer).
func (d *Detector) interval() {
	now := time.Now()
	d.mu.Lock()
	if d.stopped {
		d.mu.Unlock()
		return
	}
	busy, back := false, false
	var samples [2][]sample
	for _, m := range d.monitors {
		back = d.release(m, now) || back
		for o := range m.rates {
			percent, volume := m.rates[o].take()
			m.rates[o].show(unknownRate)
			busy = busy || volume > 0
			if volume > 0 {
				samples[o] = append(samples[o], sample{m, percent, volume})
			}
		}
	}
	var failed []*host.Host
	for o := range samples {
		failed = d.judge(failed, o, samples[o])
	}
	for _, m := range d.monitors {
		if m.host.Has(host.FailedOutlier|host.DegradedOutlier) || m.backoff > 0 || m.degradedBackoff > 0 {
			busy = true
		}
	}
	d.armed.Store(false)
	d.mu.Unlock()
	if busy {
		d.arm()
	}
	if back || len(failed) > 0 {
		d.env.Changed(failed)
	}
}

// release ends an ejection or a degradation whose time is over, and shortens the next one of a host
// that was neither; the caller holds mu (DetectorImpl::checkHostForUneject).
func (d *Detector) release(m *monitor, now time.Time) (changed bool) {
	base, limit := d.duration(baseEjectionMs), d.duration(maxEjectionMs)
	over := func(since time.Time, backoff uint64, jitter time.Duration) bool {
		return min(base*time.Duration(backoff), limit)+jitter <= now.Sub(since)
	}
	switch {
	case !m.host.Has(host.FailedOutlier):
		m.backoff -= min(m.backoff, 1)
	case over(m.ejectedAt, m.backoff, m.jitter):
		d.uneject(m)
		changed = true
	}
	switch {
	case !m.host.Has(host.DegradedOutlier):
		m.degradedBackoff -= min(m.degradedBackoff, 1)
	case over(m.degradedAt, m.degradedBackoff, m.degradedJitter):
		m.host.Clear(host.DegradedOutlier)
		changed = true
	}
	return changed
}

// sample is a host with requests in the interval.
type sample struct {
	m       *monitor
	percent float64
	volume  uint64
}

// judge finds the outliers among the rates of one origin; the caller holds mu
// (DetectorImpl::processSuccessRateEjections).
func (d *Detector) judge(failed []*host.Host, origin int, samples []sample) []*host.Host {
	d.summary[origin] = Unknown
	members := uint64(d.env.Members())
	minSuccess, minFailure := d.get(successMinimumHosts), d.get(failureMinimumHosts)
	if members < minSuccess && members < minFailure {
		return failed
	}
	successVolume, failureVolume := d.get(successVolume), d.get(failureVolume)
	var success, failure []sample
	for _, s := range samples {
		if s.m.host.Has(host.FailedOutlier) {
			continue
		}
		if s.volume >= min(successVolume, failureVolume) {
			s.m.rates[origin].show(s.percent)
		}
		if s.volume >= successVolume {
			success = append(success, s)
		}
		if s.volume >= failureVolume {
			failure = append(failure, s)
		}
	}
	if len(success) > 0 && uint64(len(success)) >= minSuccess {
		failed = d.bySuccess(failed, origin, success)
	}
	if len(failure) > 0 && uint64(len(failure)) >= minFailure {
		failed = d.byFailure(failed, origin, failure)
	}
	return failed
}

// bySuccess ejects hosts whose rate is far below the others'.
func (d *Detector) bySuccess(failed []*host.Host, origin int, samples []sample) []*host.Host {
	mean, variance := 0.0, 0.0
	for _, s := range samples {
		mean += s.percent
	}
	mean /= float64(len(samples))
	for _, s := range samples {
		variance += (s.percent - mean) * (s.percent - mean)
	}
	variance /= float64(len(samples))
	threshold := mean - float64(d.get(successStdevFactor))/1000*math.Sqrt(variance)
	d.summary[origin] = Summary{mean, threshold}
	why := [...]cause{external: bySuccessRate, local: byLocalSuccessRate}[origin]
	for _, s := range samples {
		if s.percent < threshold {
			d.env.Stats.SuccessRate.Inc()
			d.env.Stats.detected(why).Inc()
			failed = d.eject(failed, s.m, why)
		}
	}
	return failed
}

// byFailure ejects hosts that fail too large a share of their requests.
func (d *Detector) byFailure(failed []*host.Host, origin int, samples []sample) []*host.Host {
	limit := float64(d.get(failureThreshold))
	why := [...]cause{external: byFailures, local: byLocalFailures}[origin]
	for _, s := range samples {
		if 100-s.percent < limit {
			continue
		}
		d.env.Stats.detected(why).Inc()
		failed = d.eject(failed, s.m, why)
	}
	return failed
}
