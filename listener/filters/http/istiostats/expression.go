package istiostats

import (
	"cmp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

// expression gives a dimension its value.
type expression struct {
	set  bool
	text string
	path string // an attribute; "" for a text
	arg  string // of request.headers['arg'] and the like
}

// attributes are what expressions read.
type attributes struct {
	info *stream.Info
	node *structpb.Struct
	id   string
}

// compileExpression reads a text in quotes or a path of attributes.
func compileExpression(p *config.Path, text string, errs *config.Errors) expression {
	t := strings.TrimSpace(text)
	if n := len(t); n >= 2 && (t[0] == '"' || t[0] == '\'') && t[n-1] == t[0] && strings.IndexByte(t[1:n-1], t[0]) < 0 {
		return expression{set: true, text: t[1 : n-1]}
	}
	if n, err := strconv.ParseFloat(t, 64); err == nil {
		return expression{set: true, text: strconv.FormatFloat(n, 'f', -1, 64)}
	}
	path, arg := t, ""
	if i := strings.IndexByte(t, '['); i > 0 && strings.HasSuffix(t, "]") {
		path = t[:i]
		arg = strings.Trim(t[i+1:len(t)-1], `"' `)
	}
	switch path {
	case "request.headers", "response.headers", "response.trailers":
		if arg != "" {
			return expression{set: true, path: path, arg: strings.ToLower(arg)}
		}
	case "request.host", "request.path", "request.url_path", "request.method", "request.scheme",
		"request.protocol", "request.id", "request.useragent", "request.referer", "response.code",
		"response.code_details", "response.flags", "source.address", "source.port", "destination.address",
		"destination.port", "connection.requested_server_name", "upstream.address", "xds.cluster_name",
		"xds.route_name", "node.id":
		if arg == "" {
			return expression{set: true, path: path}
		}
	}
	if rest, ok := strings.CutPrefix(t, "node.metadata"); ok {
		if keys, ok := metadataKeys(rest); ok {
			return expression{set: true, path: "node.metadata", arg: keys}
		}
	}
	if isPath(t) {
		return expression{set: true, text: unknown} // of nothing that there is
	}
	errs.Addf(p, "the expression %q is not supported", text)
	return expression{}
}

// isPath tells whether a text is made of identifiers and dots.
func isPath(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || part[0] >= '0' && part[0] <= '9' {
			return false
		}
		for _, c := range part {
			if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

// metadataKeys turns ['A']['b'] or .A.b into keys divided by zero bytes.
func metadataKeys(s string) (string, bool) {
	var keys []string
	for s != "" {
		switch s[0] {
		case '.':
			n := strings.IndexAny(s[1:], ".[")
			if n < 0 {
				n = len(s) - 1
			}
			keys, s = append(keys, s[1:1+n]), s[1+n:]
		case '[':
			n := strings.IndexByte(s, ']')
			if n < 0 {
				return "", false
			}
			keys, s = append(keys, strings.Trim(s[1:n], `"' `)), s[n+1:]
		default:
			return "", false
		}
	}
	return strings.Join(keys, "\x00"), len(keys) > 0
}

func headerOf(h *header.Map, name string) string {
	if h == nil {
		return ""
	}
	v, _ := h.Joined(name)
	return v
}

// eval returns the value, "unknown" if there is none.
func (e *expression) eval(at *attributes) string {
	if e.path == "" {
		return e.text
	}
	return cmp.Or(e.read(at), unknown)
}

func (e *expression) read(at *attributes) string {
	i := at.info
	switch e.path {
	case "request.headers":
		return headerOf(i.Request, e.arg)
	case "response.headers":
		return headerOf(i.Response, e.arg)
	case "response.trailers":
		return headerOf(i.ResponseTrailers, e.arg)
	case "request.host":
		return headerOf(i.Request, ":authority")
	case "request.path":
		return headerOf(i.Request, ":path")
	case "request.url_path":
		path, _, _ := strings.Cut(headerOf(i.Request, ":path"), "?")
		return path
	case "request.method":
		return headerOf(i.Request, ":method")
	case "request.scheme":
		return headerOf(i.Request, ":scheme")
	case "request.id":
		return headerOf(i.Request, "x-request-id")
	case "request.useragent":
		return headerOf(i.Request, "user-agent")
	case "request.referer":
		return headerOf(i.Request, "referer")
	case "request.protocol":
		return i.Protocol.String()
	case "response.code":
		return strconv.Itoa(i.Status)
	case "response.code_details":
		return i.Details
	case "response.flags":
		return strconv.FormatUint(uint64(i.Flags), 10)
	}
	return e.readMore(at)
}

func (e *expression) readMore(at *attributes) string {
	i := at.info
	port := func(a stream.Addr) string { return strconv.Itoa(int(a.IP.Port())) }
	switch e.path {
	case "source.address":
		return i.Conn.Remote.String()
	case "source.port":
		return port(i.Conn.Remote)
	case "destination.address":
		return i.Conn.Local.String()
	case "destination.port":
		return port(i.Conn.Local)
	case "connection.requested_server_name":
		return i.Conn.SNI
	case "upstream.address":
		return i.Upstream.Host.String()
	case "xds.cluster_name":
		return i.Cluster
	case "xds.route_name":
		return i.RouteName
	case "node.id":
		return at.id
	case "node.metadata":
		return nodeText(at.node, strings.Split(e.arg, "\x00"))
	}
	return ""
}

func nodeText(s *structpb.Struct, keys []string) string {
	for i, k := range keys {
		v := s.GetFields()[k]
		if i < len(keys)-1 {
			s = v.GetStructValue()
			continue
		}
		switch x := v.GetKind().(type) {
		case *structpb.Value_StringValue:
			return x.StringValue
		case *structpb.Value_NumberValue:
			return strconv.FormatFloat(x.NumberValue, 'f', -1, 64)
		case *structpb.Value_BoolValue:
			return strconv.FormatBool(x.BoolValue)
		}
	}
	return ""
}
