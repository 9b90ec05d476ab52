// Package grpchttp reads what gRPC puts into HTTP heads, as Envoy does (Grpc::Common).
package grpchttp

import (
	"strconv"
	"strings"
	"time"

	"sidecar/api/header"
)

// IsRequest tells whether a request head is that of a gRPC call (Grpc::Common::hasGrpcContentType).
func IsRequest(h *header.Map) bool {
	rest, ok := strings.CutPrefix(h.Value(header.ContentType), "application/grpc")
	return ok && (rest == "" || rest[0] == '+')
}

// StatusFromHTTP maps a response code as the gRPC specification says for responses without a status
// (Grpc::Utility::httpToGrpcStatus).
func StatusFromHTTP(code int) int {
	switch code {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}

// Timeout reads a grpc-timeout: up to eight digits and a unit; 0 if there is none or it is not valid.
func Timeout(v string) time.Duration {
	if len(v) < 2 || len(v) > 9 {
		return 0
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil {
		return 0
	}
	unit := time.Duration(0)
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	}
	if n > uint64(1<<62/max(unit, 1)) {
		return 1 << 62
	}
	return time.Duration(n) * unit
}

// IsResponse tells whether a response head is that of a gRPC call; one that ends the stream has a
// status (Grpc::Common::isGrpcResponseHeaders).
func IsResponse(h *header.Map, end bool) bool {
	if end {
		return h.Has(header.GrpcStatus)
	}
	return h.Value(header.Status) == "200" && IsRequest(h)
}

// AppendMessage percent-encodes a grpc-message.
func AppendMessage[T ~string | ~[]byte](b []byte, s T) []byte {
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '%' {
			b = append(b, c)
			continue
		}
		b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
	}
	return b
}

// httpCodes are the response codes that stand for statuses (Grpc::Utility::grpcToHttpStatus).
//
//nolint:gochecknoglobals // immutable table
var httpCodes = [...]int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}

// HTTPFromStatus maps the text of a grpc-status; 500 if it is none.
func HTTPFromStatus(v string) int {
	n, err := strconv.ParseUint(v, 10, 8)
	if err != nil || n >= uint64(len(httpCodes)) {
		return 500
	}
	return httpCodes[n]
}

// maxTimeout is the largest number of a grpc-timeout: eight digits.
const maxTimeout = 99999999

// AppendTimeout appends a grpc-timeout in milliseconds, or in a larger unit if it is too long for that
// (Grpc::Common::toGrpcTimeout).
func AppendTimeout(b []byte, d time.Duration) []byte {
	for _, u := range [...]struct {
		unit time.Duration
		name byte
	}{{time.Millisecond, 'm'}, {time.Second, 'S'}, {time.Minute, 'M'}, {time.Hour, 'H'}} {
		if n := int64(d / u.unit); n <= maxTimeout {
			return append(strconv.AppendInt(b, n, 10), u.name)
		}
	}
	return append(strconv.AppendInt(b, maxTimeout, 10), 'H')
}
