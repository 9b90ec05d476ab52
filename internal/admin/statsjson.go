package admin

import (
	"encoding/json"
	"net/http"
	"strconv"

	"sidecar/api/stats"
)

// statsJSON prints {"stats":[{name,value}..., {"histograms":...}]}.
func (s *Server) statsJSON(p *statParams) answer {
	rows := s.collect(p)
	b := []byte(`{"stats":[`)
	first := true
	comma := func() {
		if !first {
			b = append(b, ',')
		}
		first = false
	}
	for pass := range 2 {
		for i := range rows {
			r := &rows[i]
			if passOf(r.Kind) != pass {
				continue
			}
			comma()
			b = appendJSONString(append(b, `{"name":`...), r.name)
			b = append(b, `,"value":`...)
			if r.Kind == stats.KindText {
				b = appendJSONString(b, r.text())
			} else {
				b = strconv.AppendUint(b, r.value(), 10)
			}
			b = append(b, '}')
		}
	}
	var histograms []*row
	for i := range rows {
		if rows[i].Kind == stats.KindHistogram {
			histograms = append(histograms, &rows[i])
		}
	}
	if len(histograms) > 0 {
		comma()
		b = append(b, `{"histograms":`...)
		b = append(appendHistograms(b, histograms, p.buckets), '}')
	}
	b = append(b, "]}"...)
	return answer{status: http.StatusOK, contentType: typeJSON, body: b}
}

func appendHistograms(b []byte, rows []*row, buckets string) []byte {
	switch buckets {
	case "cumulative", "disjoint":
		b = append(b, '[')
		for i, r := range rows {
			b = appendEntry(b, i, r.name, `"buckets":[`)
			total, recent := r.histogram()
			b = append(appendJSONBuckets(b, total, recent, r.Unit, buckets == "disjoint"), "]}"...)
		}
		return append(b, ']')
	case "detailed":
		b = appendPercentiles(append(b, `{"supported_percentiles":`...))
		b = append(b, `,"details":[`...)
		for i, r := range rows {
			b = appendEntry(b, i, r.name, `"totals":[`)
			total, recent := r.histogram()
			b = append(appendJSONBins(b, total), `],"intervals":[`...)
			b = append(appendJSONBins(b, recent), `],"percentiles":[`...)
			b = append(appendValues(b, total, recent, r.Unit), "]}"...)
		}
		return append(b, "]}"...)
	}
	b = appendPercentiles(append(b, `{"supported_quantiles":`...))
	b = append(b, `,"computed_quantiles":[`...)
	for i, r := range rows {
		b = appendEntry(b, i, r.name, `"values":[`)
		total, recent := r.histogram()
		b = append(appendValues(b, total, recent, r.Unit), "]}"...)
	}
	return append(b, "]}"...)
}

func appendEntry(b []byte, i int, name, next string) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	b = appendJSONString(append(b, `{"name":`...), name)
	return append(append(b, ','), next...)
}

func appendPercentiles(b []byte) []byte {
	for i, q := range stats.Quantiles {
		b = append(b, "[,"[min(i, 1)])
		b = appendJSONNumber(b, percentile(q))
	}
	return append(b, ']')
}

func appendValues(b []byte, total, recent stats.Snapshot, u stats.Unit) []byte {
	for i, q := range stats.Quantiles {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONQuantile(append(b, `{"cumulative":`...), total, q, u)
		b = appendJSONQuantile(append(b, `,"interval":`...), recent, q, u)
		b = append(b, '}')
	}
	return b
}

func appendJSONQuantile(b []byte, s stats.Snapshot, q float64, u stats.Unit) []byte {
	v, found := s.Quantile(q, u)
	if !found {
		return append(b, "null"...)
	}
	return appendJSONNumber(b, v)
}

func appendJSONBuckets(b []byte, all, last stats.Snapshot, u stats.Unit, disjoint bool) []byte {
	var recentBefore, totalBefore uint64
	for i, limit := range stats.DefaultBuckets {
		if i > 0 {
			b = append(b, ',')
		}
		recent, total := last.CountAtMost(limit, u), all.CountAtMost(limit, u)
		b = appendJSONNumber(append(b, `{"upper_bound":`...), limit)
		b = strconv.AppendUint(append(b, `,"interval":`...), recent-recentBefore, 10)
		b = strconv.AppendUint(append(b, `,"cumulative":`...), total-totalBefore, 10)
		b = append(b, '}')
		if disjoint {
			recentBefore, totalBefore = recent, total
		}
	}
	return b
}

func appendJSONBins(b []byte, s stats.Snapshot) []byte {
	for i, bin := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONNumber(append(b, `{"lower_bound":`...), bin.Lower())
		b = appendJSONNumber(append(b, `,"width":`...), bin.Width())
		b = strconv.AppendUint(append(b, `,"count":`...), bin.Count, 10)
		b = append(b, '}')
	}
	return b
}

// appendJSONNumber prints a number the shorter way: 1800000, but 3e+05.
func appendJSONNumber(b []byte, v float64) []byte {
	var fixed, scientific [32]byte
	f := strconv.AppendFloat(fixed[:0], v, 'f', -1, 64)
	e := strconv.AppendFloat(scientific[:0], v, 'e', -1, 64)
	if len(e) < len(f) {
		return append(b, e...)
	}
	return append(b, f...)
}

func appendJSONString(b []byte, s string) []byte {
	// Marshal of a string can't fail; it makes bytes that are not UTF-8 into U+FFFD.
	q, _ := json.Marshal(s)
	return append(b, q...)
}
