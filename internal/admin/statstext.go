package admin

import (
	"bufio"
	"io"
	"net/http"
	"strconv"

	"sidecar/api/stats"
)

// statsText prints text readouts, then counters and gauges, then histograms, each sorted.
func (s *Server) statsText(p *statParams) answer {
	rows := s.collect(p)
	return answer{status: http.StatusOK, contentType: typeText, write: func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 32<<10)
		var b []byte
		for pass := range 3 {
			for i := range rows {
				r := &rows[i]
				if passOf(r.kind) != pass {
					continue
				}
				b = append(append(b[:0], r.name...), ':')
				b = append(appendText(b, r, p.buckets), '\n')
				if _, err := out.Write(b); err != nil {
					return err
				}
			}
		}
		return out.Flush()
	}}
}

func passOf(k stats.Kind) int {
	switch k {
	case stats.KindText:
		return 0
	case stats.KindHistogram:
		return 2
	case stats.KindCounter, stats.KindGauge:
	}
	return 1
}

func appendText(b []byte, r *row, buckets string) []byte {
	switch r.kind {
	case stats.KindCounter:
		return strconv.AppendUint(append(b, ' '), r.value, 10)
	case stats.KindGauge:
		return appendGauge(append(b, ' '), r.gauge)
	case stats.KindText:
		return append(append(append(b, ` "`...), escapeHTML(r.text)...), '"')
	case stats.KindHistogram:
	}
	switch buckets {
	case "cumulative", "disjoint":
		return appendBuckets(b, r, buckets == "disjoint")
	case "detailed":
		b = appendBins(append(b, "\n  totals="...), r.total, r.unit)
		b = appendBins(append(b, "\n  intervals="...), r.recent, r.unit)
		return appendQuantiles(append(b, "\n  summary="...), r)
	}
	if len(r.total) == 0 {
		return append(b, " No recorded values"...)
	}
	return appendQuantiles(append(b, ' '), r)
}

// appendGauge prints a gauge, which is unsigned in Envoy.
func appendGauge(b []byte, v int64) []byte { return strconv.AppendUint(b, uint64(max(v, 0)), 10) }

func appendQuantiles(b []byte, r *row) []byte {
	for i, q := range stats.Quantiles {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, 'P')
		b = appendNumber(b, percentile(q))
		b = append(b, '(')
		b = appendQuantile(b, r.recent, q, r.unit)
		b = append(b, ',')
		b = appendQuantile(b, r.total, q, r.unit)
		b = append(b, ')')
	}
	return b
}

// percentile is q as a percentage, without the noise of floating point.
func percentile(q float64) float64 { return float64(int(q*1000+0.5)) / 10 }

func appendQuantile(b []byte, s stats.Snapshot, q float64, u stats.Unit) []byte {
	v, found := s.Quantile(q, u)
	if !found {
		return append(b, "nan"...)
	}
	return appendNumber(b, v)
}

// appendNumber prints a number with as many digits as it needs.
func appendNumber(b []byte, v float64) []byte {
	if v >= 1e16 {
		return strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	return strconv.AppendFloat(b, v, 'f', -1, 64)
}

func appendBuckets(b []byte, r *row, disjoint bool) []byte {
	var recentBefore, totalBefore uint64
	for _, limit := range stats.DefaultBuckets {
		recent, total := r.recent.CountAtMost(limit, r.unit), r.total.CountAtMost(limit, r.unit)
		b = append(b, " B"...)
		b = strconv.AppendFloat(b, limit, 'g', 6, 64)
		b = append(b, '(')
		b = strconv.AppendUint(b, recent-recentBefore, 10)
		b = append(b, ',')
		b = strconv.AppendUint(b, total-totalBefore, 10)
		b = append(b, ')')
		if disjoint {
			recentBefore, totalBefore = recent, total
		}
	}
	return b
}

func appendBins(b []byte, s stats.Snapshot, u stats.Unit) []byte {
	for i, bin := range s {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendFloat(b, bin.Lower(), 'g', 6, 64)
		b = append(b, ',')
		b = strconv.AppendFloat(b, bin.Width(), 'g', 6, 64)
		b = append(b, ':')
		b = strconv.AppendUint(b, bin.Count, 10)
	}
	return b
}

func escapeHTML(s string) string {
	return htmlEscaper.Replace(s)
}
