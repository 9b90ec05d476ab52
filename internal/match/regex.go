package match

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"sidecar/internal/config"
)

var regexFields = config.Fields[*matcherv3.RegexMatcher]{
	Used: "regex",
	NoOp: map[string]string{
		"google_re2": "names the only engine; its limit on the program size is deprecated",
	},
}

// Regex is an expression that a text must match as a whole.
type Regex struct {
	re     *regexp.Regexp
	prefix string
}

// CompileRegex reads a RegexMatcher. It returns nil after an error.
func CompileRegex(p *config.Path, m *matcherv3.RegexMatcher, errs *config.Errors) *Regex {
	regexFields.Check(p, m, errs)
	inner, err := parseRegex(m.GetRegex())
	if err != nil {
		errs.Addf(p.Field("regex"), "%w", err)
		return nil
	}
	// Cannot fail: a valid expression in a group is valid. MustCompile would turn a mistake here
	// into a crash at the whim of a management server.
	full, err := regexp.Compile(`\A(?:` + m.GetRegex() + `)\z`)
	if err != nil {
		errs.Addf(p.Field("regex"), "%w", err)
		return nil
	}
	prefix, _ := inner.LiteralPrefix()
	return &Regex{re: full, prefix: prefix}
}

func parseRegex(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, errors.New("is required")
	}
	re, err := regexp.Compile(expr)
	if err == nil {
		return re, nil
	}
	if se, ok := err.(*syntax.Error); ok { //nolint:errorlint // regexp returns exactly this type
		return nil, fmt.Errorf("invalid regex '%s': %s: %s", expr, se.Code, se.Expr)
	}
	return nil, fmt.Errorf("invalid regex '%s': %w", expr, err)
}

// Match tells whether all of s matches.
func (r *Regex) Match(s string) bool { return r.re.MatchString(s) }

// Prefix returns a text that everything that matches begins with; often empty.
func (r *Regex) Prefix() string { return r.prefix }
