package admin

import (
	"net/http"
	"regexp"
	"regexp/syntax"
	"sort"

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

// row is one stat to be shown, read when it was listed.
type row struct {
	name    string
	kind    stats.Kind
	unit    stats.Unit
	value   uint64 // of a counter
	gauge   int64
	text    string
	total   stats.Snapshot
	recent  stats.Snapshot
	scope   []stats.Tag
	sortKey string // for Prometheus: the family
	tags    []stats.Tag
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
		r := row{
			name: name, kind: sample.Kind, unit: sample.Unit, value: sample.Counter(),
			gauge: sample.Gauge(), text: sample.Text(), scope: sample.AppendTags(nil),
		}
		r.total, r.recent = sample.Histogram()
		rows = append(rows, r)
	})
	sort.Slice(rows, func(i, j int) bool {
		if rows[i].name != rows[j].name {
			return rows[i].name < rows[j].name
		}
		return rows[i].kind < rows[j].kind
	})
	return merge(rows)
}

// merge makes one of rows that spell one name in different scopes.
func merge(rows []row) []row {
	n := 0
	for _, r := range rows {
		if n > 0 && rows[n-1].name == r.name && rows[n-1].kind == r.kind {
			last := &rows[n-1]
			last.value += r.value
			last.gauge += r.gauge
			last.total, last.recent = last.total.Plus(r.total), last.recent.Plus(r.recent)
			if last.text == "" {
				last.text = r.text
			}
			continue
		}
		rows[n] = r
		n++
	}
	return rows[:n]
}

func (s *Server) serveStats(r *request) answer {
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
