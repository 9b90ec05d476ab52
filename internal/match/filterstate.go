package match

import (
	"fmt"
	"strconv"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
)

var filterStateFields = config.Fields[*matcherv3.FilterStateMatcher]{
	Used:    "key string_match",
	Refused: "address_match",
}

// FilterState is a compiled FilterStateMatcher.
type FilterState struct {
	key  string
	text String
}

// CompileFilterState reads a FilterStateMatcher.
func CompileFilterState(
	p *config.Path, m *matcherv3.FilterStateMatcher, errs *config.Errors,
) FilterState {
	filterStateFields.Check(p, m, errs)
	out := FilterState{key: m.GetKey()}
	if m.GetAddressMatch() == nil {
		out.text = CompileString(p.Field("string_match"), m.GetStringMatch(), errs)
	}
	return out
}

// Match looks at the stream's filter state, then at the connection's.
func (f *FilterState) Match(info *stream.Info) bool {
	if info == nil {
		return false
	}
	o, ok := info.FilterState[f.key]
	if !ok && info.Conn != nil {
		o, ok = info.Conn.FilterState[f.key]
	}
	return ok && f.text.Match(objectText(o.Value))
}

func objectText(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case []byte:
		return string(x)
	case bool:
		return strconv.FormatBool(x)
	case int64:
		return strconv.FormatInt(x, 10)
	case fmt.Stringer:
		return x.String()
	}
	return ""
}
