// Package stattag cuts tags out of the dotted names of stats, as Envoy does: by its default rules
// and by those of the bootstrap's stats_config.
//
// Single importer: the admin server now, stats sinks next; rules are no part of either.
package stattag

import (
	"regexp"
	"slices"
	"strings"

	"sidecar/api/stats"
)

// Rule is one entry of stats_config.stats_tags or --stats-tag.
type Rule struct {
	Name string
	// Regex is searched for in a name: its first group is cut out of the name, its second (the
	// first, if it has only one) is the value. nil: see Fixed.
	Regex *regexp.Regexp
	// Fixed is the value for every stat; empty, without a Regex: the default rule of this name.
	Fixed string
}

// Rules are compiled rules. They are immutable and may be used from any goroutine.
type Rules struct {
	// always are tried on every name; byToken on names that begin with a token and a dot.
	always  []extractor
	byToken map[string][]extractor
	fixed   []stats.Tag
}

// extractor finds one tag.
type extractor struct {
	name string
	// need is text that the name must hold for the regex to be worth trying.
	need   string
	regex  *regexp.Regexp
	except string   // a value that does not count
	tokens []string // instead of a regex: "cluster", "$", "**"
}

// New compiles rules: the default ones if asked for, and others behind them.
func New(defaults bool, rules []Rule) *Rules {
	r := &Rules{byToken: map[string][]extractor{}}
	for _, e := range defaultExtractors() {
		if defaults {
			r.add(e)
		}
	}
	for _, rule := range rules {
		switch {
		case rule.Regex != nil:
			r.add(extractor{name: rule.Name, regex: rule.Regex})
		case rule.Fixed != "":
			r.fixed = append(r.fixed, stats.Tag{Name: rule.Name, Value: rule.Fixed})
		case !defaults:
			for _, e := range defaultExtractors() {
				if e.name == rule.Name {
					r.add(e)
				}
			}
		}
	}
	return r
}

func (r *Rules) add(e extractor) {
	if token := e.firstToken(); token != "" {
		r.byToken[token] = append(r.byToken[token], e)
		return
	}
	r.always = append(r.always, e)
}

// firstToken returns what a name must begin with, up to its first dot; "" if that isn't known.
func (e *extractor) firstToken() string {
	if e.tokens != nil {
		if t := e.tokens[0]; t != "$" && t != "*" {
			return t
		}
		return ""
	}
	rest, ok := strings.CutPrefix(e.regex.String(), "^")
	if !ok {
		return ""
	}
	n := 0
	for n < len(rest) && (rest[n] == '_' || rest[n] >= 'a' && rest[n] <= 'z') {
		n++
	}
	if strings.HasPrefix(rest[n:], `\.`) {
		return rest[:n]
	}
	return ""
}

// span is a part of a name that is cut out.
type span struct{ start, end int }

// Extract returns the name without its tags, and appends the tags to tags. A tag of a name that
// tags has already (a scope's own) is cut out and not added.
func (r *Rules) Extract(name string, tags []stats.Tag) (string, []stats.Tag) {
	var buf [8]span
	cut := buf[:0]
	for i := range r.always {
		cut, tags = r.always[i].extract(name, cut, tags)
	}
	token, _, _ := strings.Cut(name, ".")
	for i := range r.byToken[token] {
		cut, tags = r.byToken[token][i].extract(name, cut, tags)
	}
	tags = append(tags, r.fixed...)
	return remove(name, cut), tags
}

func (e *extractor) extract(name string, cut []span, tags []stats.Tag) ([]span, []stats.Tag) {
	s, value, ok := e.find(name)
	if !ok {
		return cut, tags
	}
	if s.end > s.start {
		cut = append(cut, s)
	}
	for i := range tags {
		if tags[i].Name == e.name {
			return cut, tags
		}
	}
	return cut, append(tags, stats.Tag{Name: e.name, Value: value})
}

func (e *extractor) find(name string) (s span, value string, ok bool) {
	if e.tokens != nil {
		return findToken(name, e.tokens)
	}
	if e.need != "" && !strings.Contains(name, e.need) {
		return span{}, "", false
	}
	m := e.regex.FindStringSubmatchIndex(name)
	if len(m) < 4 {
		return span{}, "", false
	}
	// A group that took no part is empty, as in std::regex.
	if m[2] >= 0 {
		s = span{m[2], m[3]}
	}
	value = name[s.start:s.end]
	if len(m) >= 6 && m[4] >= 0 {
		value = name[m[4]:m[5]]
	}
	return s, value, e.except == "" || value != e.except
}

// findToken matches a name against tokens divided by dots: "*" is any one token, "**" one or more,
// "$" the value, which is cut out with one dot beside it.
func findToken(name string, tokens []string) (s span, value string, ok bool) {
	at := 0
	for i, want := range tokens {
		if want == "**" {
			if i == len(tokens)-1 {
				return s, value, at < len(name)
			}
			return findRest(name, at, tokens[i+1:], s, value)
		}
		if at > len(name) {
			return s, value, false
		}
		token, _, more := strings.Cut(name[at:], ".")
		end := at + len(token)
		switch want {
		case "$":
			value = token
			s = span{at, end + 1}
			if !more {
				s = span{max(at-1, 0), end}
			}
		case "*":
		default:
			if token != want {
				return s, value, false
			}
		}
		at = end + 1
	}
	return s, value, at > len(name)
}

// findRest matches what follows a "**" at any later token.
func findRest(name string, at int, rest []string, s span, value string) (span, string, bool) {
	for at <= len(name) {
		if _, _, ok := findToken(name[at:], rest); ok {
			return s, value, true
		}
		i := strings.IndexByte(name[at:], '.')
		if i < 0 {
			break
		}
		at += i + 1
	}
	return s, value, false
}

// remove returns name without the spans, which may overlap.
func remove(name string, cut []span) string {
	if len(cut) == 0 {
		return name
	}
	slices.SortFunc(cut, func(a, b span) int { return a.start - b.start })
	var b strings.Builder
	b.Grow(len(name))
	at := 0
	for _, s := range cut {
		if s.start > at {
			b.WriteString(name[at:s.start])
		}
		at = max(at, s.end)
	}
	b.WriteString(name[at:])
	return b.String()
}
