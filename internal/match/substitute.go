package match

import (
	"errors"
	"fmt"
	"regexp"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"sidecar/internal/config"
)

var substituteFields = config.Fields[*matcherv3.RegexMatchAndSubstitute]{Used: "pattern substitution"}

// Substitution replaces every match of an expression by a text in which \0 to \9 stand for the
// match and its groups, and \\ for a backslash (RE2::GlobalReplace).
type Substitution struct {
	re    *regexp.Regexp
	parts []part
}

// part is literal text, or a group where group is not negative.
type part struct {
	text  string
	group int
}

// CompileSubstitution reads a RegexMatchAndSubstitute. It returns nil after an error.
//
// DIVERGES(regex_rewrite): a substitution that RE2 can't carry out is refused; Envoy takes it and
// then leaves every text as it is.
func CompileSubstitution(
	p *config.Path, m *matcherv3.RegexMatchAndSubstitute, errs *config.Errors,
) *Substitution {
	substituteFields.Check(p, m, errs)
	regexFields.Check(p.Field("pattern"), m.GetPattern(), errs)
	re, err := parseRegex(m.GetPattern().GetRegex())
	if err != nil {
		errs.Addf(p.Field("pattern.regex"), "%w", err)
		return nil
	}
	parts, err := parseSubstitution(m.GetSubstitution(), re.NumSubexp())
	if err != nil {
		errs.Addf(p.Field("substitution"), "%w", err)
		return nil
	}
	return &Substitution{re: re, parts: parts}
}

func parseSubstitution(text string, groups int) ([]part, error) {
	var parts []part
	var lit []byte
	flush := func() {
		if len(lit) > 0 {
			parts = append(parts, part{text: string(lit), group: -1})
			lit = nil
		}
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			lit = append(lit, text[i])
			continue
		}
		if i++; i == len(text) {
			return nil, errors.New(`'\' not allowed at end`)
		}
		switch c := text[i]; {
		case c == '\\':
			lit = append(lit, c)
		case c < '0' || c > '9':
			return nil, errors.New(`'\' must be followed by a digit or '\'`)
		case int(c-'0') > groups:
			return nil, fmt.Errorf("requests group %c, but the regex has only %d", c, groups)
		default:
			flush()
			parts = append(parts, part{group: int(c - '0')})
		}
	}
	flush()
	return parts, nil
}

// AppendReplaced appends src with its matches replaced. It allocates.
func (s *Substitution) AppendReplaced(dst []byte, src string) []byte {
	from := 0
	for _, loc := range s.re.FindAllStringSubmatchIndex(src, -1) {
		dst = append(dst, src[from:loc[0]]...)
		for i := range s.parts {
			g := s.parts[i].group
			if g < 0 {
				dst = append(dst, s.parts[i].text...)
			} else if loc[2*g] >= 0 {
				dst = append(dst, src[loc[2*g]:loc[2*g+1]]...)
			}
		}
		from = loc[1]
	}
	return append(dst, src[from:]...)
}
