package admin

import (
	"net/http"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"sidecar/api/stats"
)

// statParams are the parameters of /stats and /stats/prometheus.
type statParams struct {
	usedOnly, invert, texts bool
	filter                  *regexp.Regexp
	kinds                   map[stats.Kind]bool // nil: all
	buckets                 string
	format                  string
}

func parseStatParams(q query) (p statParams, refusal *answer) {
	refuse := func(a answer) (statParams, *answer) { return p, &a }
	p.usedOnly, p.invert, p.texts = q.has("usedonly"), q.has("invert_filter"), q.has("text_readouts")
	if expr, given := q.get("filter"); given && expr != "" {
		re, err := compileRegex(expr)
		if err != nil {
			return refuse(text(http.StatusBadRequest, err.Error()))
		}
		p.filter = re
	}
	if kind, given := q.get("type"); given {
		one := map[string]stats.Kind{
			"Counters": stats.KindCounter, "Gauges": stats.KindGauge,
			"Histograms": stats.KindHistogram, "TextReadouts": stats.KindText,
		}
		k, known := one[kind]
		switch {
		case known:
			p.kinds = map[stats.Kind]bool{k: true}
		case kind != "All":
			return refuse(text(http.StatusBadRequest, "invalid &type= param"))
		}
	}
	switch p.buckets, _ = q.get("histogram_buckets"); p.buckets {
	case "", "cumulative", "disjoint", "detailed", "summary":
	default:
		return refuse(text(http.StatusBadRequest,
			"usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n"))
	}
	switch p.format, _ = q.get("format"); p.format {
	case "", "text", "json", "prometheus":
	case "html", "active-html":
		return refuse(text(http.StatusNotImplemented, "HTML is not supported by this proxy\n"))
	default:
		return refuse(text(http.StatusBadRequest, "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"))
	}
	return p, nil
}

// compileRegex compiles a filter; its error has RE2's text as Envoy shows it.
func compileRegex(expr string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, Error("Invalid re2 regex: " + regexProblem(err, expr))
	}
	return re, nil
}

func regexProblem(err error, expr string) string {
	e, isSyntax := err.(*syntax.Error) //nolint:errorlint // regexp returns it bare
	if !isSyntax {
		return err.Error()
	}
	switch e.Code { //nolint:exhaustive // the texts of the others are the same, or nearly so
	case syntax.ErrMissingParen:
		return "missing ): " + expr
	case syntax.ErrMissingBracket:
		return "missing ]: " + e.Expr
	case syntax.ErrInvalidRepeatOp:
		return "bad repetition operator: " + e.Expr
	case syntax.ErrMissingRepeatArgument:
		return "no argument for repetition operator: " + e.Expr
	}
	return e.Code.String() + ": " + e.Expr
}

// row is one stat to be shown. It is small, since there may be a million: values are read when they
// are printed.
type row struct {
	stats.Sample
	name string
	// more are other stats that have the same name.
	more *row
}

// value is a counter's or a gauge's value; Envoy's gauges are unsigned.
func (r *row) value() uint64 {
	var counter uint64
	var gauge int64
	for at := r; at != nil; at = at.more {
		counter += at.Counter()
		gauge += at.Gauge()
	}
	if r.Kind == stats.KindGauge {
		return uint64(max(gauge, 0))
	}
	return counter
}

func (r *row) text() string {
	for at := r; at != nil; at = at.more {
		if s := at.Text(); s != "" {
			return s
		}
	}
	return ""
}

// histogram returns all values and those of the last interval.
func (r *row) histogram() (total, recent stats.Snapshot) {
	for at := r; at != nil; at = at.more {
		t, i := at.Sample.Histogram()
		total, recent = total.Plus(t), recent.Plus(i)
	}
	return total, recent
}

// collect lists the stats that are asked for, sorted by name, each name once.
func (s *Server) collect(p *statParams) []row {
	var rows []row
	s.options.Stats.Each(p.usedOnly, func(sample *stats.Sample) {
		if p.kinds != nil && !p.kinds[sample.Kind] {
			return
		}
		if p.filter != nil && p.filter.Match(sample.Name) == p.invert {
			return
		}
		name := string(sample.Name)
		if s.options.Rejects != nil && s.options.Rejects(name) {
			return
		}
		rows = append(rows, row{Sample: *sample, name: name})
	})
	slices.SortFunc(rows, func(a, b row) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return int(a.Kind) - int(b.Kind)
	})
	return merge(rows)
}

// merge makes one of rows that spell one name in different scopes.
func merge(rows []row) []row {
	n := 0
	for i := range rows {
		if n > 0 && rows[n-1].name == rows[i].name && rows[n-1].Kind == rows[i].Kind {
			same := rows[i]
			same.more, rows[n-1].more = rows[n-1].more, &same
			continue
		}
		rows[n] = rows[i]
		n++
	}
	return rows[:n]
}

func (s *Server) serveStats(r *request) answer {
	s.flush()
	p, refusal := parseStatParams(r.query)
	switch {
	case refusal != nil:
		return *refusal
	case p.format == "json":
		return s.statsJSON(&p)
	case p.format == "prometheus":
		return s.prometheus(&p)
	}
	return s.statsText(&p)
}

func (s *Server) servePrometheus(r *request) answer {
	s.flush()
	p, refusal := parseStatParams(r.query)
	if refusal != nil {
		return *refusal
	}
	return s.prometheus(&p)
}

func (s *Server) serveResetCounters(*request) answer {
	s.options.Stats.ResetCounters()
	return ok()
}

// flush ends an interval of the histograms, where the reader does that.
func (s *Server) flush() {
	if s.options.FlushOnRead {
		s.options.Stats.Flush()
	}
}
