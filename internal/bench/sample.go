package main

import (
	"fmt"
	"maps"
	"slices"
)

// sample is what one measurement of one proxy gave, by metric.
type sample map[string]float64

// Metrics that most benches have.
const (
	metricCPU  = "CPU us/request"
	metricRate = "requests/s"
	metricP50  = "p50 ms"
	metricP99  = "p99 ms"
	metricRSS  = "RSS MB"
)

// series is what all rounds gave for one metric of one proxy.
type series []float64

func (s series) sorted() series {
	out := slices.Clone(s)
	slices.Sort(out)
	return out
}

// median is the middle value, or the mean of the two in the middle.
func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	v := s.sorted()
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func (s series) String() string {
	if len(s) == 0 {
		return "-"
	}
	v := s.sorted()
	return fmt.Sprintf("%s [%s, %s]", number(s.median()), number(v[0]), number(v[len(v)-1]))
}

// number prints three or four significant digits.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1 || a == 0:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

// rounds is what a bench measured: for each subject its samples, in the order of the rounds.
type rounds map[string][]sample

func (r rounds) series(subject, metric string) series {
	var out series
	for _, s := range r[subject] {
		if v, ok := s[metric]; ok {
			out = append(out, v)
		}
	}
	return out
}

// ratio divides round by round: what disturbs a round disturbs both sides of it.
func (r rounds) ratio(a, b, metric string) series {
	as, bs := r.series(a, metric), r.series(b, metric)
	var out series
	for i := range min(len(as), len(bs)) {
		if bs[i] != 0 {
			out = append(out, as[i]/bs[i])
		}
	}
	return out
}

// difference subtracts round by round.
func (r rounds) difference(a, b, metric string) series {
	as, bs := r.series(a, metric), r.series(b, metric)
	out := make(series, 0, min(len(as), len(bs)))
	for i := range cap(out) {
		out = append(out, as[i]-bs[i])
	}
	return out
}

func (r rounds) metrics() []string {
	names := map[string]bool{}
	for _, samples := range r {
		for _, s := range samples {
			for m := range s {
				names[m] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
