package stattag

import (
	"strings"

	"sidecar/api/stats"
)

// namespaces are prefixes under which plugins name their own metrics; they are stripped, and the
// metric gets no "envoy_": so "istiocustom.istio_requests_total" becomes istio_requests_total.
func namespaces() [2]string { return [...]string{"wasmcustom.", "istiocustom."} }

// MetricName returns the Prometheus name of a stat whose tags were cut out.
func MetricName(extracted string) string {
	for _, ns := range namespaces() {
		if rest, ok := strings.CutPrefix(extracted, ns); ok {
			return Sanitize(rest)
		}
	}
	return Sanitize("envoy_" + extracted)
}

// Sanitize replaces what Prometheus doesn't allow in names, and puts an underscore before a digit.
func Sanitize(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
	if clean != "" && clean[0] >= '0' && clean[0] <= '9' {
		return "_" + clean
	}
	return clean
}

// AppendLabels appends tags as Prometheus labels, without braces.
func AppendLabels(dst []byte, tags []stats.Tag) []byte {
	for i, t := range tags {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, Sanitize(t.Name)...)
		dst = append(dst, '=', '"')
		for j := range len(t.Value) {
			switch c := t.Value[j]; c {
			case '\\', '"':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			default:
				dst = append(dst, c)
			}
		}
		dst = append(dst, '"')
	}
	return dst
}
