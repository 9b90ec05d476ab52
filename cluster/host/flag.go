package host

import "time"

// Flag is what was found out about a host here, besides what the control plane says of it
// (Envoy's Host::HealthFlag).
type Flag uint32

// The flags.
const (
	// FailedActiveHC: active health checks fail.
	FailedActiveHC Flag = 1 << iota
	// FailedOutlier: outlier detection has ejected the host.
	FailedOutlier
	// DegradedActiveHC and DegradedOutlier: the host says that it is degraded, to a check or in
	// responses.
	DegradedActiveHC
	DegradedOutlier
	// PendingRemoval: the control plane has removed the host, and active checks still find it good.
	PendingRemoval
	// PendingActiveHC: the first active check has not ended, and the host is left out until then.
	PendingActiveHC
	// ExcludedImmediateHC: the host has asked to be left out (x-envoy-immediate-health-check-fail).
	ExcludedImmediateHC
	// ActiveHCTimeout: the last active check ran out of time.
	ActiveHCTimeout
)

const (
	failed   = FailedActiveHC | FailedOutlier
	degraded = DegradedActiveHC | DegradedOutlier
	excluded = PendingActiveHC | ExcludedImmediateHC
)

// Condition is what all that is known of a host comes to (Host::coarseHealth).
type Condition uint8

// The conditions.
const (
	Up Condition = iota
	Down
	Poor // degraded
)

// Flags returns the host's flags.
func (h *Host) Flags() Flag { return Flag(h.flags.Load()) }

// Has tells whether any of the flags is set.
func (h *Host) Has(f Flag) bool { return h.Flags()&f != 0 }

// Set sets flags. The sets that the host is in are not rebuilt: see Set.Refresh.
func (h *Host) Set(f Flag) { h.flags.Or(uint32(f)) }

// Clear clears flags, as Set sets them.
func (h *Host) Clear(f Flag) { h.flags.And(^uint32(f)) }

// Condition returns whether the host takes traffic.
func (h *Host) Condition() Condition {
	health, flags := h.Attr().Health, h.Flags()
	switch {
	case health == Unhealthy || health == Draining || health == Timeout || flags&failed != 0:
		return Down
	case health == Degraded || flags&degraded != 0:
		return Poor
	}
	return Up
}

// Excluded tells whether the host counts for nothing when availability and panic are worked out.
func (h *Host) Excluded() bool { return h.Attr().Health == Draining || h.Has(excluded) }

// PeekWatch returns what Watch has kept, else nil.
func (h *Host) PeekWatch() any {
	if s := h.state.Load(); s != nil {
		if w := s.watch.Load(); w != nil {
			return *w
		}
	}
	return nil
}

// Watch returns what outlier detection keeps of the host, made at the first call.
func (h *Host) Watch(create func() any) any {
	s := h.live()
	if w := s.watch.Load(); w != nil {
		return *w
	}
	w := create()
	s.watch.CompareAndSwap(nil, &w)
	return *s.watch.Load()
}

// Since returns when the host came up, the zero time if nobody has noted that.
func (h *Host) Since() time.Time {
	if s := h.state.Load(); s != nil {
		if ns := s.since.Load(); ns != 0 {
			return time.Unix(0, ns)
		}
	}
	return time.Time{}
}

// SetSince notes when the host came up, from which slow start counts.
func (h *Host) SetSince(t time.Time) { h.live().since.Store(t.UnixNano()) }

// Removed tells whether the host has left its cluster.
func (h *Host) Removed() bool {
	s := h.state.Load()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed
}
