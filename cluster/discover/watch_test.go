package discover

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scripted answers one lookup after the other.
type scripted struct {
	mu      sync.Mutex
	answers []Answer
	errs    []error
	at      []time.Time
}

func (s *scripted) Lookup(context.Context, string, Family) (Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.at)
	s.at = append(s.at, time.Now())
	var err error
	if n < len(s.errs) {
		err = s.errs[n]
	}
	return s.answers[min(n, len(s.answers)-1)], err
}

// intervals are the times between lookups, in seconds.
func (s *scripted) intervals() (out []float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 1; i < len(s.at); i++ {
		out = append(out, s.at[i].Sub(s.at[i-1]).Seconds())
	}
	return out
}

func TestWatchIntervals(t *testing.T) {
	t.Parallel()
	ip := []netip.Addr{netip.IPv6Loopback()}
	bad := errors.New("no")
	tests := []struct {
		name    string
		opt     Options
		answers []Answer
		errs    []error
		random  uint64
		want    []float64
	}{
		{
			"the refresh rate",
			Options{Refresh: 5 * time.Second},
			[]Answer{{ip, time.Second}},
			nil, 0,
			[]float64{5, 5, 5},
		},
		{
			"the TTL",
			Options{Refresh: 5 * time.Second, RespectTTL: true},
			[]Answer{{ip, 7 * time.Second}, {ip, 2 * time.Second}},
			nil, 0,
			[]float64{7, 2, 2},
		},
		{
			"the TTL, no less than the minimum",
			Options{Refresh: 5 * time.Second, RespectTTL: true, MinRefresh: 3 * time.Second},
			[]Answer{{ip, time.Second}},
			nil, 0,
			[]float64{3, 3, 3},
		},
		{
			"no TTL of an empty answer",
			Options{Refresh: 5 * time.Second, RespectTTL: true},
			[]Answer{{}},
			nil, 0,
			[]float64{5, 5, 5},
		},
		{
			"a TTL of 0",
			Options{Refresh: 5 * time.Second, RespectTTL: true},
			[]Answer{{ip, 0}},
			nil, 0,
			[]float64{5, 5, 5},
		},
		{
			"jitter",
			Options{Refresh: 5 * time.Second, Jitter: 2 * time.Second},
			[]Answer{{ip, 0}},
			nil, uint64(time.Second),
			[]float64{6, 6, 6},
		},
		{
			"failures without a rate of their own",
			Options{Refresh: 5 * time.Second},
			[]Answer{{}},
			[]error{bad, bad, bad},
			0,
			[]float64{5, 5, 5},
		},
		{
			"failures back off up to the maximum, and begin anew after a success",
			Options{Refresh: 60 * time.Second, FailureBase: time.Second, FailureMax: 3 * time.Second},
			[]Answer{{ip, 0}},
			[]error{bad, bad, bad, nil, bad},
			// Just below each ceiling of 1, 2 and 3 seconds.
			uint64(6*time.Second) - 1,
			[]float64{1, 2, 3, 60, 1},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{answers: tt.answers, errs: tt.errs}
				attempts := 0
				w := Start(t.Context(), s, "x", &tt.opt, func() uint64 { return tt.random },
					func() { attempts++ }, func(Answer, error) {})
				time.Sleep(90 * time.Second) // of the bubble's clock
				synctest.Wait()
				w.Stop()
				got := s.intervals()
				for i, want := range tt.want {
					if i >= len(got) || got[i] < want-0.001 || got[i] > want+0.001 {
						t.Fatalf("intervals %v, want %v", got[:min(len(got), 6)], tt.want)
					}
				}
				before := len(got)
				time.Sleep(time.Hour)
				synctest.Wait()
				if len(s.intervals()) != before || attempts != before+1 {
					t.Fatal("looked up after Stop")
				}
			})
		})
	}
}
