package format

import (
	"strings"

	"sidecar/api/header"
	"sidecar/api/stream"
)

func requestHeaders(in *stream.Info) *header.Map   { return in.Request }
func responseHeaders(in *stream.Info) *header.Map  { return in.Response }
func responseTrailers(in *stream.Info) *header.Map { return in.ResponseTrailers }

func makeRequestHeader(param string, _ *Options) (op, error) { return headerOp(param, requestHeaders) }

func makeResponseHeader(param string, _ *Options) (op, error) {
	return headerOp(param, responseHeaders)
}

func makeResponseTrailer(param string, _ *Options) (op, error) {
	return headerOp(param, responseTrailers)
}

func makeRequestWithoutQuery(param string, _ *Options) (op, error) {
	v, err := headerOp(param, requestHeaders)
	if err != nil {
		return op{}, err
	}
	full := v.text
	v.text = func(dst []byte, in *stream.Info) ([]byte, bool) {
		n := len(dst)
		dst, ok := full(dst, in)
		for i := n; i < len(dst); i++ {
			if dst[i] == '?' {
				return dst[:i], ok
			}
		}
		return dst, ok
	}
	return v, nil
}

// name is a header that is looked up by its index where it has one.
type name struct {
	id   header.ID
	text string
}

func newName(s string) name {
	s = strings.ToLower(s)
	if s == "host" {
		s = ":authority" // what it is called once it was read, over any protocol
	}
	return name{header.Lookup(s), s}
}

// in returns the first value.
func (n name) in(m *header.Map) (string, bool) {
	switch {
	case m == nil || n.text == "":
		return "", false
	case n.id != header.None:
		return m.GetID(n.id)
	}
	return m.Get(n.text)
}

// headerOp makes NAME(X?Y): the first value of X, or of Y when X is not there.
func headerOp(param string, of func(*stream.Info) *header.Map) (op, error) {
	names := strings.Split(param, "?")
	if len(names) > 2 {
		return op{}, errorf("More than 1 alternative header specified in token: %s", param)
	}
	for _, s := range names {
		if !validName(s) {
			return op{}, Error("Invalid header configuration. Format string contains invalid characters.")
		}
	}
	main, alternative := newName(names[0]), name{}
	if len(names) == 2 {
		alternative = newName(names[1])
	}
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		m := of(in)
		v, ok := main.in(m)
		if !ok {
			v, ok = alternative.in(m)
		}
		return append(dst, v...), ok
	}}, nil
}

// validName accepts header names with pseudo-headers, and the empty one, which is never there.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return true
}

// makePath makes PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH).
func makePath(param string, _ *Options) (op, error) {
	query, source, _ := strings.Cut(param, ":")
	source, _, _ = strings.Cut(source, ":")
	if query != "" && query != "WQ" && query != "NQ" {
		return op{}, errorf("Invalid PATH option: '%s', only 'WQ'/'NQ' are allowed", query)
	}
	if source != "" && source != "ORIG" && source != "PATH" && source != "ORIG_OR_PATH" {
		return op{}, errorf("Invalid PATH option: '%s', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed", source)
	}
	path, original := newName(":path"), newName("x-envoy-original-path")
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		var v string
		var ok bool
		if source != "PATH" {
			v, ok = original.in(in.Request)
		}
		if !ok && source != "ORIG" {
			v, ok = path.in(in.Request)
		}
		if query == "NQ" {
			v, _, _ = strings.Cut(v, "?")
		}
		return append(dst, v...), ok
	}}, nil
}

// queryOf returns the query of the request's path and whether it has one.
func queryOf(in *stream.Info) (string, bool) {
	if in.Request == nil {
		return "", false
	}
	path, _ := in.Request.Get(":path")
	_, query, ok := strings.Cut(path, "?")
	query, _, _ = strings.Cut(query, "#")
	return query, ok
}

func makeQueryParam(param string, _ *Options) (op, error) {
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		query, _ := queryOf(in)
		for query != "" {
			var pair string
			pair, query, _ = strings.Cut(query, "&")
			key, value, _ := strings.Cut(pair, "=")
			n := len(dst)
			dst = appendUnescaped(dst, key)
			found := string(dst[n:]) == param
			if dst = dst[:n]; found {
				return appendUnescaped(dst, value), true
			}
		}
		return dst, false
	}}, nil
}

// appendUnescaped decodes percent escapes; a wrong one stays as it is.
func appendUnescaped(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := strings.IndexByte(hexDigits, s[i+1]|0x20), strings.IndexByte(hexDigits, s[i+2]|0x20)
			if hi >= 0 && lo >= 0 {
				dst = append(dst, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		dst = append(dst, s[i])
	}
	return dst
}

func makeQueryParams(param string, _ *Options) (op, error) {
	if param != "" && param != "ORIG" && param != "DECODED" {
		return op{}, errorf("Invalid QUERY_PARAMS option: '%s', only 'ORIG'/'DECODED' are allowed", param)
	}
	if param == "DECODED" {
		return op{}, Error("QUERY_PARAMS(DECODED) is not supported by this proxy")
	}
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		query, ok := queryOf(in)
		return append(dst, query...), ok
	}}, nil
}

// makeServerName makes REQUESTED_SERVER_NAME: the SNI, or with an option the request's host too.
func makeServerName(param string, _ *Options) (op, error) {
	switch param {
	case "", "SNI_ONLY", "SNI_FIRST", "HOST_FIRST":
	default:
		return op{}, errorf("Invalid REQUESTED_SERVER_NAME option: '%s', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed", param)
	}
	authority := newName(":authority")
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		v := in.Conn.SNI
		if param == "HOST_FIRST" || param == "SNI_FIRST" && v == "" {
			if host, ok := authority.in(in.Request); ok {
				v = host
			}
		}
		return appendString(dst, v)
	}}, nil
}

// makeDetails makes RESPONSE_CODE_DETAILS, whose spaces become underscores unless asked for.
func makeDetails(param string, _ *Options) (op, error) {
	if param == "ALLOW_WHITESPACES" {
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendString(dst, in.Details)
		}}, nil
	}
	if param != "" {
		// DIVERGES(format): Envoy takes any other option, and ignores it.
		return op{}, errorf("Invalid RESPONSE_CODE_DETAILS option: '%s', only 'ALLOW_WHITESPACES' is allowed", param)
	}
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		return appendSpaceless(dst, in.Details)
	}}, nil
}

func makeEnvironment(param string, o *Options) (op, error) {
	var value string
	var ok bool
	if o.Getenv != nil {
		value, ok = o.Getenv(param)
	}
	return op{text: func(dst []byte, _ *stream.Info) ([]byte, bool) {
		return append(dst, value...), ok
	}}, nil
}

func makeHostname(_ string, o *Options) (op, error) {
	hostname := o.Hostname
	return op{text: func(dst []byte, _ *stream.Info) ([]byte, bool) {
		return appendString(dst, hostname)
	}}, nil
}

func makeLocalReplyBody(_ string, o *Options) (op, error) {
	if o.InLog {
		return op{text: func(dst []byte, _ *stream.Info) ([]byte, bool) { return dst, true }}, nil
	}
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		return append(dst, in.LocalReplyBody...), true
	}}, nil
}
