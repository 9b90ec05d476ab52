package route

import (
	"slices"
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/match"
	"sidecar/internal/xxhash"
)

var (
	hashPolicyFields = config.Fields[*routev3.RouteAction_HashPolicy]{
		Used: "header cookie connection_properties query_parameter filter_state terminal",
	}
	hashHeaderFields = config.Fields[*routev3.RouteAction_HashPolicy_Header]{
		Used: "header_name regex_rewrite",
	}
	hashCookieFields = config.Fields[*routev3.RouteAction_HashPolicy_Cookie]{
		Used: "name ttl path attributes",
	}
	hashAttributeFields = config.Fields[*routev3.RouteAction_HashPolicy_CookieAttribute]{Used: "name value"}
	hashSourceFields    = config.Fields[*routev3.RouteAction_HashPolicy_ConnectionProperties]{Used: "source_ip"}
	hashQueryFields     = config.Fields[*routev3.RouteAction_HashPolicy_QueryParameter]{Used: "name"}
	hashStateFields     = config.Fields[*routev3.RouteAction_HashPolicy_FilterState]{Used: "key"}
)

// hashMethod is one of a route's hash policies.
type hashMethod struct {
	kind       hashKind
	terminal   bool
	name       string
	rewrite    *match.Substitution
	generate   bool // a cookie that is missing is made
	cookieTail string
}

type hashKind uint8

const (
	hashHeader hashKind = iota
	hashCookie
	hashSourceIP
	hashQuery
	hashFilterState
)

// hashPolicies compiles hash_policy.
func (c *compiler) hashPolicies(p *config.Path, list []*routev3.RouteAction_HashPolicy) []hashMethod {
	var out []hashMethod
	for i, m := range list {
		at := p.Index(i)
		hashPolicyFields.Check(at, m, c.errs)
		x := hashMethod{terminal: m.GetTerminal()}
		switch s := m.GetPolicySpecifier().(type) {
		case *routev3.RouteAction_HashPolicy_Header_:
			at = at.Field("header")
			hashHeaderFields.Check(at, s.Header, c.errs)
			x.kind, x.name = hashHeader, match.HeaderName(s.Header.GetHeaderName())
			if s.Header.GetRegexRewrite() != nil {
				x.rewrite = match.CompileSubstitution(at.Field("regex_rewrite"), s.Header.GetRegexRewrite(), c.errs)
			}
		case *routev3.RouteAction_HashPolicy_Cookie_:
			c.hashCookie(at.Field("cookie"), s.Cookie, &x)
		case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
			hashSourceFields.Check(at.Field("connection_properties"), s.ConnectionProperties, c.errs)
			if !s.ConnectionProperties.GetSourceIp() {
				continue
			}
			x.kind = hashSourceIP
		case *routev3.RouteAction_HashPolicy_QueryParameter_:
			hashQueryFields.Check(at.Field("query_parameter"), s.QueryParameter, c.errs)
			x.kind, x.name = hashQuery, s.QueryParameter.GetName()
		case *routev3.RouteAction_HashPolicy_FilterState_:
			hashStateFields.Check(at.Field("filter_state"), s.FilterState, c.errs)
			x.kind, x.name = hashFilterState, s.FilterState.GetKey()
		}
		out = append(out, x)
	}
	return out
}

func (c *compiler) hashCookie(p *config.Path, m *routev3.RouteAction_HashPolicy_Cookie, x *hashMethod) {
	hashCookieFields.Check(p, m, c.errs)
	x.kind, x.name, x.generate = hashCookie, m.GetName(), m.GetTtl() != nil
	if !x.generate {
		return
	}
	var b strings.Builder
	if ttl := config.Duration(p.Field("ttl"), m.GetTtl(), 0, c.errs); ttl >= time.Second {
		b.WriteString("; Max-Age=" + strconv.FormatInt(int64(ttl/time.Second), 10))
	}
	if m.GetPath() != "" {
		b.WriteString("; Path=" + m.GetPath())
	}
	for i, a := range m.GetAttributes() {
		hashAttributeFields.Check(p.Field("attributes").Index(i), a, c.errs)
		b.WriteString("; " + a.GetName())
		if a.GetValue() != "" {
			b.WriteString("=" + a.GetValue())
		}
	}
	b.WriteString("; HttpOnly")
	x.cookieTail = b.String()
}

// Hashed is what the hash policies of a route come to for a request.
type Hashed struct {
	Hash uint64
	OK   bool
	// SetCookies are the cookies that the response is to set.
	SetCookies []string
}

// Hash works out what consistent hashing goes by (HashPolicyImpl::generateHash). h is the head as it
// goes upstream.
func (a *Action) Hash(h *header.Map, info *stream.Info) (out Hashed) {
	for i := range a.hash {
		x := &a.hash[i]
		v, ok := x.value(h, info, &out)
		if ok {
			// Rotated, so that two policies of one value don't cancel each other out.
			out.Hash, out.OK = (out.Hash<<1|out.Hash>>63)^v, true
		}
		if x.terminal && out.OK {
			break
		}
	}
	return out
}

func (x *hashMethod) value(h *header.Map, info *stream.Info, out *Hashed) (hash uint64, ok bool) {
	switch x.kind {
	case hashHeader:
		return x.ofHeader(h)
	case hashCookie:
		if v, _ := match.CookieValue(h, x.name); v != "" {
			return xxhash.Sum64(0, v), true
		}
		if !x.generate {
			return 0, false
		}
		// Streams that race on one connection get one cookie.
		v := strconv.FormatUint(xxhash.Sum64(0, info.Conn.Remote.String()+info.Conn.Local.String()), 16)
		v = strings.Repeat("0", 16-len(v)) + v
		out.SetCookies = append(out.SetCookies, x.name+`="`+v+`"`+x.cookieTail)
		return xxhash.Sum64(0, v), true
	case hashSourceIP:
		if !info.Remote.IsValid() {
			return 0, false
		}
		return xxhash.Sum64(0, info.Remote.String()), true
	case hashQuery:
		v, ok := match.QueryParameter(h.Value(header.Path), x.name)
		return xxhash.Sum64(0, v), ok
	case hashFilterState:
		v, ok := info.FilterState[x.name]
		if !ok && info.Conn != nil {
			v = info.Conn.FilterState[x.name]
		}
		s, ok := v.Value.(string)
		return xxhash.Sum64(0, s), ok
	}
	return 0, false
}

// ofHeader hashes all values of a header, in an order that does not depend on theirs.
func (x *hashMethod) ofHeader(h *header.Map) (hash uint64, ok bool) {
	var room [4]string
	values := room[:0]
	for i := range h.Len() {
		if name, v := h.At(i); name == x.name {
			if x.rewrite != nil {
				v = string(x.rewrite.AppendReplaced(nil, v))
			}
			values = append(values, v)
		}
	}
	slices.Sort(values)
	for _, v := range values {
		hash = xxhash.Sum64(hash, v)
	}
	return hash, len(values) > 0
}
