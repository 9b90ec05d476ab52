package admin

import (
	"bufio"
	"io"
	"net/http"
	"sort"
	"strconv"

	"sidecar/api/stats"
	"sidecar/internal/stattag"
)

// prometheus prints families by kind (counters, gauges, text readouts, histograms), each sorted by
// name. Nothing is added to names but the namespace: no _total, no HELP.
func (s *Server) prometheus(p *statParams) answer {
	switch p.buckets {
	case "", "cumulative", "summary":
	default:
		return text(http.StatusBadRequest, "unsupported prometheus histogram bucket mode")
	}
	rows := s.collect(p)
	for i := range rows {
		extracted, tags := s.options.Tags.Extract(rows[i].name, rows[i].scope)
		rows[i].sortKey, rows[i].tags = stattag.MetricName(extracted), tags
	}
	// Stable, so that a family stays sorted by the names of its stats.
	sort.SliceStable(rows, func(i, j int) bool {
		if a, b := familyPass(rows[i].kind), familyPass(rows[j].kind); a != b {
			return a < b
		}
		return rows[i].sortKey < rows[j].sortKey
	})
	return answer{status: http.StatusOK, contentType: typeText, write: func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 32<<10)
		var b []byte
		family := ""
		for i := range rows {
			r := &rows[i]
			if r.kind == stats.KindText && !p.texts {
				continue
			}
			b = b[:0]
			kind := familyType(r.kind, p.buckets)
			if key := kind + r.sortKey; key != family {
				family = key
				b = append(append(append(append(b, "# TYPE "...), r.sortKey...), ' '), kind...)
				b = append(b, '\n')
			}
			if _, err := out.Write(appendSeries(b, r, p.buckets)); err != nil {
				return err
			}
		}
		return out.Flush()
	}}
}

func familyPass(k stats.Kind) int {
	switch k {
	case stats.KindCounter:
		return 0
	case stats.KindGauge:
		return 1
	case stats.KindText:
		return 2
	case stats.KindHistogram:
	}
	return 3
}

func familyType(k stats.Kind, buckets string) string {
	switch k {
	case stats.KindCounter:
		return "counter"
	case stats.KindGauge, stats.KindText:
		return "gauge"
	case stats.KindHistogram:
	}
	if buckets == "summary" {
		return "summary"
	}
	return "histogram"
}

func appendSeries(b []byte, r *row, buckets string) []byte {
	switch r.kind {
	case stats.KindCounter:
		b = appendLabels(append(b, r.sortKey...), r.tags, "", "")
		return append(strconv.AppendUint(append(b, ' '), r.value, 10), '\n')
	case stats.KindGauge:
		b = appendLabels(append(b, r.sortKey...), r.tags, "", "")
		return append(appendGauge(append(b, ' '), r.gauge), '\n')
	case stats.KindText:
		tags := append(r.tags[:len(r.tags):len(r.tags)], stats.Tag{Name: "text_value", Value: r.text})
		b = appendLabels(append(b, r.sortKey...), tags, "", "")
		return append(b, " 0\n"...)
	case stats.KindHistogram:
	}
	if buckets == "summary" {
		for _, q := range stats.Quantiles {
			b = appendLabels(append(b, r.sortKey...), r.tags, "quantile", strconv.FormatFloat(q, 'g', -1, 64))
			v, found := r.recent.Quantile(q, r.unit)
			b = append(b, ' ')
			if found {
				b = appendExact(b, v)
			} else {
				b = append(b, "nan"...)
			}
			b = append(b, '\n')
		}
		return appendTotals(b, r, r.recent)
	}
	for _, limit := range stats.DefaultBuckets {
		b = append(append(b, r.sortKey...), "_bucket"...)
		b = appendLabels(b, r.tags, "le", strconv.FormatFloat(limit, 'f', -1, 64))
		b = append(strconv.AppendUint(append(b, ' '), r.total.CountAtMost(limit, r.unit), 10), '\n')
	}
	b = append(append(b, r.sortKey...), "_bucket"...)
	b = appendLabels(b, r.tags, "le", "+Inf")
	b = append(strconv.AppendUint(append(b, ' '), r.total.Count(), 10), '\n')
	return appendTotals(b, r, r.total)
}

func appendTotals(b []byte, r *row, s stats.Snapshot) []byte {
	b = appendLabels(append(append(b, r.sortKey...), "_sum"...), r.tags, "", "")
	b = append(appendExact(append(b, ' '), s.Sum(r.unit)), '\n')
	b = appendLabels(append(append(b, r.sortKey...), "_count"...), r.tags, "", "")
	return append(strconv.AppendUint(append(b, ' '), s.Count(), 10), '\n')
}

// appendExact prints 32 digits, as Envoy does.
func appendExact(b []byte, v float64) []byte { return strconv.AppendFloat(b, v, 'g', 32, 64) }

// appendLabels prints the labels in braces, and one more if it has a name.
func appendLabels(b []byte, tags []stats.Tag, name, value string) []byte {
	b = stattag.AppendLabels(append(b, '{'), tags)
	if name != "" {
		if len(tags) > 0 {
			b = append(b, ',')
		}
		b = append(append(append(append(b, name...), `="`...), value...), '"')
	}
	return append(b, '}')
}
