package admin

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

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
	families := s.families(rows, p)
	return answer{status: http.StatusOK, contentType: typeText, write: func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 32<<10)
		var b []byte
		for _, f := range families {
			kind := familyType(f.kind, p.buckets)
			b = append(append(append(append(b[:0], "# TYPE "...), f.name...), ' '), kind...)
			b = append(b, '\n')
			for _, i := range f.rows {
				tags := rows[i].AppendTags(nil)
				if _, vector := rows[i].Base(); !vector {
					_, tags = s.options.Tags.Extract(rows[i].name, tags)
				}
				b = appendSeries(b, f.name, &rows[i], tags, p.buckets)
				if _, err := out.Write(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
		return out.Flush()
	}}
}

// family is the series of one name and kind.
type family struct {
	name string
	kind stats.Kind
	rows []int32 // in the order of the names of the stats
}

func (s *Server) families(rows []row, p *statParams) []*family {
	type key struct {
		extracted string
		pass      int
	}
	// By the name without tags first: it has few values, and a metric's name takes time to make.
	byKey := map[key]*family{}
	var out []*family
	var tags []stats.Tag
	for i := range rows {
		kind := rows[i].Kind
		if kind == stats.KindText && !p.texts {
			continue
		}
		extracted, vector := rows[i].Base()
		if !vector {
			extracted, tags = s.options.Tags.Extract(rows[i].name, tags[:0])
		}
		k := key{extracted, familyPass(kind)}
		f := byKey[k]
		if f == nil {
			f = &family{name: stattag.MetricName(extracted), kind: kind}
			byKey[k] = f
			out = append(out, f)
		}
		f.rows = append(f.rows, int32(i))
	}
	slices.SortStableFunc(out, func(a, b *family) int {
		if c := familyPass(a.kind) - familyPass(b.kind); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return joinFamilies(out)
}

// joinFamilies makes one of families whose names differ only in characters that Prometheus doesn't
// allow.
func joinFamilies(sorted []*family) []*family {
	n := 0
	for _, f := range sorted {
		if n > 0 && sorted[n-1].name == f.name && sorted[n-1].kind == f.kind {
			sorted[n-1].rows = append(sorted[n-1].rows, f.rows...)
			slices.Sort(sorted[n-1].rows)
			continue
		}
		sorted[n] = f
		n++
	}
	return sorted[:n]
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

func appendSeries(b []byte, name string, r *row, tags []stats.Tag, buckets string) []byte {
	switch r.Kind {
	case stats.KindCounter, stats.KindGauge:
		b = appendLabels(append(b, name...), tags, "", "")
		return append(strconv.AppendUint(append(b, ' '), r.value(), 10), '\n')
	case stats.KindText:
		tags = append(slices.Clip(tags), stats.Tag{Name: "text_value", Value: r.text()})
		b = appendLabels(append(b, name...), tags, "", "")
		return append(b, " 0\n"...)
	case stats.KindHistogram:
	}
	total, recent := r.histogram()
	if buckets == "summary" {
		for _, q := range stats.Quantiles {
			b = appendLabels(append(b, name...), tags, "quantile", strconv.FormatFloat(q, 'g', -1, 64))
			v, found := recent.Quantile(q, r.Unit)
			b = append(b, ' ')
			if found {
				b = appendExact(b, v)
			} else {
				b = append(b, "nan"...)
			}
			b = append(b, '\n')
		}
		return appendTotals(b, name, tags, recent, r.Unit)
	}
	for _, limit := range stats.DefaultBuckets {
		b = append(append(b, name...), "_bucket"...)
		b = appendLabels(b, tags, "le", strconv.FormatFloat(limit, 'f', -1, 64))
		b = append(strconv.AppendUint(append(b, ' '), total.CountAtMost(limit, r.Unit), 10), '\n')
	}
	b = append(append(b, name...), "_bucket"...)
	b = appendLabels(b, tags, "le", "+Inf")
	b = append(strconv.AppendUint(append(b, ' '), total.Count(), 10), '\n')
	return appendTotals(b, name, tags, total, r.Unit)
}

func appendTotals(b []byte, name string, tags []stats.Tag, s stats.Snapshot, u stats.Unit) []byte {
	b = appendLabels(append(append(b, name...), "_sum"...), tags, "", "")
	b = append(appendExact(append(b, ' '), s.Sum(u)), '\n')
	b = appendLabels(append(append(b, name...), "_count"...), tags, "", "")
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
