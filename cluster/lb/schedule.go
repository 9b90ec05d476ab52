package lb

import "sync"

// schedule is an earliest-deadline-first schedule: each entry comes up in proportion to its weight,
// evenly spread. It may be used from any goroutine; its lock is held for one heap operation.
type schedule[T any] struct {
	// Set by newSchedule, never changed. weigh gives an entry's weight when it is scheduled again; nil
	// keeps the first.
	weigh func(T) float64

	mu      sync.Mutex // guards below
	entries []entry[T]
	now     float64
	order   uint64
}

type entry[T any] struct {
	value    T
	weight   float64
	deadline float64
	order    uint64 // of equal deadlines the one that was scheduled first comes first
}

func newSchedule[T any](weigh func(T) float64) *schedule[T] { return &schedule[T]{weigh: weigh} }

func (s *schedule[T]) len() int { return len(s.entries) }

// add schedules a new entry; only before the schedule is shared.
func (s *schedule[T]) add(value T, weight float64) {
	s.order++
	s.entries = append(s.entries, entry[T]{value, weight, s.now + 1/weight, s.order})
	for i := len(s.entries) - 1; i > 0; {
		up := (i - 1) / 2
		if !s.less(i, up) {
			break
		}
		s.entries[i], s.entries[up] = s.entries[up], s.entries[i]
		i = up
	}
}

// rotate skips n entries, so that the proxies of a mesh don't all begin with the same host.
func (s *schedule[T]) rotate(n uint64) {
	for range n % uint64(len(s.entries)) {
		s.next()
	}
}

// next returns the entry that is due and schedules it again.
func (s *schedule[T]) next() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &s.entries[0]
	value := e.value
	if s.weigh != nil {
		e.weight = s.weigh(value)
	}
	s.now = e.deadline
	s.order++
	e.deadline, e.order = s.now+1/e.weight, s.order
	s.sink()
	return value
}

// sink moves the first entry down to its place.
func (s *schedule[T]) sink() {
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < len(s.entries) && s.less(down, least) {
				least = down
			}
		}
		if least == i {
			return
		}
		s.entries[i], s.entries[least] = s.entries[least], s.entries[i]
		i = least
	}
}

func (s *schedule[T]) less(i, j int) bool {
	a, b := &s.entries[i], &s.entries[j]
	if a.deadline != b.deadline {
		return a.deadline < b.deadline
	}
	return a.order < b.order
}
