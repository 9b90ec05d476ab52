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
				if passOf(r.Kind) != pass {
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
	switch r.Kind {
	case stats.KindCounter, stats.KindGauge:
		return strconv.AppendUint(append(b, ' '), r.value(), 10)
	case stats.KindText:
		return append(append(append(b, ` "`...), htmlEscaper.Replace(r.text())...), '"')
	case stats.KindHistogram:
	}
	total, recent := r.histogram()
	switch buckets {
	case "cumulative", "disjoint":
		return appendBuckets(b, total, recent, r.Unit, buckets == "disjoint")
	case "detailed":
		b = appendBins(append(b, "\n  totals="...), total)
		b = appendBins(append(b, "\n  intervals="...), recent)
		return appendQuantiles(append(b, "\n  summary="...), total, recent, r.Unit)
	}
	if len(total) == 0 {
		return append(b, " No recorded values"...)
	}
	return appendQuantiles(append(b, ' '), total, recent, r.Unit)
}

func appendQuantiles(b []byte, total, recent stats.Snapshot, u stats.Unit) []byte {
	for i, q := range stats.Quantiles {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, 'P')
		b = appendNumber(b, percentile(q))
		b = append(b, '(')
		b = appendQuantile(b, recent, q, u)
		b = append(b, ',')
		b = appendQuantile(b, total, q, u)
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

func appendBuckets(b []byte, all, last stats.Snapshot, u stats.Unit, disjoint bool) []byte {
	var recentBefore, totalBefore uint64
	for _, limit := range stats.DefaultBuckets {
		recent, total := last.CountAtMost(limit, u), all.CountAtMost(limit, u)
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

func appendBins(b []byte, s stats.Snapshot) []byte {
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
