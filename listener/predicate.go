package listener

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

//nolint:gochecknoglobals // immutable tables
var (
	predicateFields = config.Fields[*listenerv3.ListenerFilterChainMatchPredicate]{
		Used: "or_match and_match not_match any_match destination_port_range",
	}
	matchSetFields = config.Fields[*listenerv3.ListenerFilterChainMatchPredicate_MatchSet]{Used: "rules"}
)

// predicate decides whether a listener filter is left out for a connection.
type predicate func(info *stream.ConnInfo) bool

// maxPredicateDepth bounds the nesting of predicates, which are compiled by recursion.
const maxPredicateDepth = 32

// compilePredicate compiles filter_disabled; nil where there is none.
func compilePredicate(p *config.Path, m *listenerv3.ListenerFilterChainMatchPredicate, errs *config.Errors) predicate {
	if m == nil {
		return nil
	}
	return predicateAt(p, m, 0, errs)
}

func predicateAt(p *config.Path, m *listenerv3.ListenerFilterChainMatchPredicate, depth int, errs *config.Errors) predicate {
	never := func(*stream.ConnInfo) bool { return false }
	if depth > maxPredicateDepth {
		errs.Add(p, "is nested too deeply")
		return never
	}
	predicateFields.Check(p, m, errs)
	switch r := m.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		return match.Some(predicateSet(p.Field("or_match"), r.OrMatch, depth, errs))
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		return match.Every(predicateSet(p.Field("and_match"), r.AndMatch, depth, errs))
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		inner := predicateAt(p.Field("not_match"), r.NotMatch, depth+1, errs)
		return func(info *stream.ConnInfo) bool { return !inner(info) }
	case *listenerv3.ListenerFilterChainMatchPredicate_AnyMatch:
		return func(*stream.ConnInfo) bool { return true }
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		start, end := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		return func(info *stream.ConnInfo) bool {
			port := int32(info.Local.IP.Port())
			return info.Local.IP.IsValid() && port >= start && port < end
		}
	}
	errs.Add(p, "needs one of or_match, and_match, not_match, any_match, destination_port_range")
	return never
}

func predicateSet(p *config.Path, m *listenerv3.ListenerFilterChainMatchPredicate_MatchSet, depth int,
	errs *config.Errors,
) []predicate {
	matchSetFields.Check(p, m, errs)
	var out []predicate
	for i, r := range m.GetRules() {
		out = append(out, predicateAt(p.Field("rules").Index(i), r, depth+1, errs))
	}
	return out
}
