package server

import (
	"slices"
	"strings"

	"sidecar/internal/config"
)

// runtimeNumber looks a number up in the runtime layers; a later layer wins.
func (s *Server) runtimeNumber(key string) (uint64, bool) {
	for _, l := range slices.Backward(s.boot.Runtime) {
		if v, ok := l.Values[key]; ok && v.IsNumber && v.Number >= 0 {
			return uint64(v.Number), true
		}
	}
	return 0, false
}

// runtimeDouble is runtimeNumber for numbers that need not be whole.
func (s *Server) runtimeDouble(key string) (float64, bool) {
	for _, l := range slices.Backward(s.boot.Runtime) {
		if v, ok := l.Values[key]; ok && v.IsNumber {
			return float64(v.Number), true
		}
	}
	return 0, false
}

// strictHTTP1 is our own runtime key: with true, HTTP/1 codecs of downstream connections refuse what
// Envoy takes though RFC 9112 does not allow it. It is read when a listener is compiled.
const strictHTTP1 = "sidecar.http1.strict"

// runtimeBool looks a switch up in the runtime layers; a later layer wins.
func (s *Server) runtimeBool(key string) bool {
	for _, l := range slices.Backward(s.boot.Runtime) {
		if v, ok := l.Values[key]; ok && v.IsBool {
			return v.Bool
		}
	}
	return false
}

func (s *Server) runtimeFraction(key string) (config.Fraction, bool) {
	for _, l := range slices.Backward(s.boot.Runtime) {
		v, ok := l.Values[key]
		switch {
		case !ok:
		case v.IsFraction:
			return v.Fraction, true
		case v.IsNumber && v.Number >= 0:
			return config.Fraction{Numerator: uint32(min(v.Number, 100)), Denominator: 100}, true
		}
	}
	return config.Fraction{}, false
}

// ignoredRuntime begins the keys by which Envoy's own settings are overridden, and which nothing here
// reads. Any other key may be one that a route names.
var ignoredRuntime = []string{ //nolint:gochecknoglobals // immutable table
	"upstream.", "health_check.", "tracing.", "http.", "ssl.",
	"overload.", "re2.", "regex.", "zone_routing.", "load_balancer.", "connection_limit.",
	"envoy.reloadable_features.", "envoy.restart_features.", "envoy.features.", "envoy.deprecated_features",
}

// warnRuntime names the keys that are set and change nothing here: Envoy takes any key, so they are no
// error, and most bootstraps set some.
//
// DIVERGES(runtime-keys): Envoy reads these.
func (s *Server) warnRuntime() {
	var found []string
	for _, l := range s.boot.Runtime {
		for key := range l.Values {
			if slices.ContainsFunc(ignoredRuntime, func(p string) bool { return strings.HasPrefix(key, p) }) {
				found = append(found, key)
			}
		}
	}
	if len(found) == 0 {
		return
	}
	slices.Sort(found)
	s.log.Warn("runtime keys without effect: " + strings.Join(slices.Compact(found), ", "))
}
