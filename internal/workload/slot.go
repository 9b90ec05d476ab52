package workload

import "sync/atomic"

// Slot is a place in the filter state of a connection for a peer that introduces itself later. It may
// be used from any goroutine.
type Slot struct{ p atomic.Pointer[slotState] }

type slotState struct{ w *Workload }

// Settle says who the peer is; nil says that it will not be known. Only the first call counts.
func (s *Slot) Settle(w *Workload) { s.p.CompareAndSwap(nil, &slotState{w}) }

// Settled tells whether Settle was called.
func (s *Slot) Settled() bool { return s.p.Load() != nil }

// Load returns the peer, nil while it is not known.
func (s *Slot) Load() *Workload {
	if x := s.p.Load(); x != nil {
		return x.w
	}
	return nil
}

// FilterStateField is what FILTER_STATE(...:FIELD:name) prints.
func (s *Slot) FilterStateField(name string) (string, bool) {
	if w := s.Load(); w != nil {
		return w.FilterStateField(name)
	}
	return "", false
}

// String is what FILTER_STATE(...:PLAIN) prints.
func (s *Slot) String() string {
	if w := s.Load(); w != nil {
		return w.String()
	}
	return ""
}
