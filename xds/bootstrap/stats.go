package bootstrap

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"sidecar/internal/config"
	"sidecar/internal/match"
)

// Stats says how stats are tagged, and which ones there are.
type Stats struct {
	// UseAllDefaultTags adds Envoy's own tag extractors behind Tags.
	UseAllDefaultTags bool
	Tags              []StatsTag
	// Matcher tells which stats to leave out; nil: none.
	Matcher *StatsMatcher
	// FlushInterval is how often histograms are merged for their readers; 0: when the admin server
	// shows them (stats_flush_on_admin).
	FlushInterval time.Duration
}

// defaultFlush is Envoy's default of stats_flush_interval.
const defaultFlush = 5 * time.Second

func (s *Stats) flush(msg *bootstrapv3.Bootstrap, errs *config.Errors) {
	if msg.GetStatsFlushOnAdmin() {
		return
	}
	s.FlushInterval = config.Duration(config.Field("stats_flush_interval"), msg.GetStatsFlushInterval(), defaultFlush, errs)
}

// StatsTag takes a tag out of names of stats, or puts a fixed one on all.
type StatsTag struct {
	Name string
	// Regex is searched for in a name: its first group is cut out of it, its second (the first, if
	// it has only one) is the value. nil: Fixed is the value for every stat; both empty: Envoy's
	// own extractor of this name.
	Regex *regexp.Regexp
	Fixed string
}

// StatsMatcher decides by name whether a stat exists. It may be used from any goroutine.
type StatsMatcher struct {
	rejectAll bool
	inclusion bool
	patterns  []match.String
}

// Rejects tells whether a stat of this full name is left out. The nil matcher leaves none out.
func (m *StatsMatcher) Rejects(name string) bool {
	if m == nil {
		return false
	}
	if m.rejectAll {
		return true
	}
	for i := range m.patterns {
		if m.patterns[i].Match(name) {
			return !m.inclusion
		}
	}
	return m.inclusion
}

var statsFields = config.Fields[*metricsv3.StatsConfig]{
	Used:    "stats_tags use_all_default_tags stats_matcher",
	OffOnly: "allow_default_tag_overrides",
	Refused: "histogram_bucket_settings",
}

var tagFields = config.Fields[*metricsv3.TagSpecifier]{Used: "tag_name regex fixed_value"}

var statsMatcherFields = config.Fields[*metricsv3.StatsMatcher]{Used: "reject_all exclusion_list inclusion_list"}

var listMatcherFields = config.Fields[*matcherv3.ListStringMatcher]{Used: "patterns"}

func stats(msg *metricsv3.StatsConfig, errs *config.Errors) (out Stats, warnings []error) {
	path := config.Field("stats_config")
	statsFields.Check(path, msg, errs)
	out.UseAllDefaultTags = config.Value(msg.GetUseAllDefaultTags(), true)
	for i, tag := range msg.GetStatsTags() {
		at := path.Field("stats_tags").Index(i)
		tagFields.Check(at, tag, errs)
		compiled := StatsTag{Name: tag.GetTagName(), Fixed: tag.GetFixedValue()}
		if tag.GetRegex() != "" {
			var warned error
			compiled.Regex, warned = tagRegex(at.Field("regex"), tag.GetRegex(), errs)
			if warned != nil {
				warnings = append(warnings, warned)
			}
		} else if compiled.Fixed == "" && !strings.HasPrefix(compiled.Name, "envoy.") {
			errs.Addf(at, "No regex specified for tag specifier and no default regex for name: '%s'", compiled.Name)
		}
		out.Tags = append(out.Tags, compiled)
	}
	out.Matcher = statsMatcher(path.Field("stats_matcher"), msg.GetStatsMatcher(), errs)
	return out, warnings
}

// tagRegex compiles what Envoy hands to std::regex.
//
// DIVERGES(stats-tag-lookahead): Go's regexp has no lookahead. One before text that can do without it,
// as in Istio's "^listener(?=\.).*?\.http\.", is rewritten to mean the same; any other is dropped, so
// that the regex may match more names than it does in Envoy.
func tagRegex(path *config.Path, text string, errs *config.Errors) (re *regexp.Regexp, warning error) {
	re, err := regexp.Compile(text)
	if err == nil {
		return re, nil
	}
	if re, err := regexp.Compile(rewriteLookahead(text)); err == nil {
		return re, nil
	}
	without, ok := dropLookahead(text)
	if !ok {
		errs.Addf(path, "Invalid regex '%s': %w", text, err)
		return nil, nil
	}
	if re, err = regexp.Compile(without); err != nil {
		errs.Addf(path, "Invalid regex '%s': %w", text, err)
		return nil, nil
	}
	return re, fmt.Errorf("%s: there is no lookahead: reading %s as %s", path, text, without)
}

// rewriteLookahead: what follows begins with a dot either as the first of any characters, or, if those
// are none, as the dot behind them.
func rewriteLookahead(text string) string {
	return strings.ReplaceAll(text, `(?=\.).*?\.`, `(?:\..*?)?\.`)
}

func dropLookahead(text string) (string, bool) {
	start := strings.Index(text, "(?=")
	if start < 0 {
		return text, false
	}
	depth, class := 0, false
	for i := start; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				rest, _ := dropLookahead(text[i+1:])
				return text[:start] + rest, true
			}
		}
	}
	return text, false
}

func statsMatcher(path *config.Path, msg *metricsv3.StatsMatcher, errs *config.Errors) *StatsMatcher {
	if msg == nil {
		return nil
	}
	statsMatcherFields.Check(path, msg, errs)
	out := &StatsMatcher{rejectAll: msg.GetRejectAll()}
	list, path := msg.GetExclusionList(), path.Field("exclusion_list")
	if msg.GetInclusionList() != nil {
		out.inclusion = true
		list, path = msg.GetInclusionList(), config.Field("stats_config.stats_matcher.inclusion_list")
	}
	listMatcherFields.Check(path, list, errs)
	for i, pattern := range list.GetPatterns() {
		out.patterns = append(out.patterns, match.CompileString(path.Field("patterns").Index(i), pattern, errs))
	}
	return out
}
