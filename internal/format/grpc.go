package format

import (
	"strconv"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/grpchttp"
)

// grpcName is a gRPC status in the two spellings that Envoy prints.
type grpcName struct{ camel, snake string }

//nolint:gochecknoglobals // immutable table
var grpcNames = [...]grpcName{
	{"OK", "OK"},
	{"Canceled", "CANCELLED"},
	{"Unknown", "UNKNOWN"},
	{"InvalidArgument", "INVALID_ARGUMENT"},
	{"DeadlineExceeded", "DEADLINE_EXCEEDED"},
	{"NotFound", "NOT_FOUND"},
	{"AlreadyExists", "ALREADY_EXISTS"},
	{"PermissionDenied", "PERMISSION_DENIED"},
	{"ResourceExhausted", "RESOURCE_EXHAUSTED"},
	{"FailedPrecondition", "FAILED_PRECONDITION"},
	{"Aborted", "ABORTED"},
	{"OutOfRange", "OUT_OF_RANGE"},
	{"Unimplemented", "UNIMPLEMENTED"},
	{"Internal", "INTERNAL"},
	{"Unavailable", "UNAVAILABLE"},
	{"DataLoss", "DATA_LOSS"},
	{"Unauthenticated", "UNAUTHENTICATED"},
}

// GRPCStatus returns the gRPC status of a stream: from the trailers, else the headers, else as the
// response code maps to one. It is false for requests that are not gRPC.
func GRPCStatus(in *stream.Info) (int64, bool) {
	if in.Request == nil || !grpchttp.IsRequest(in.Request) {
		return 0, false
	}
	for _, m := range [...]*header.Map{in.ResponseTrailers, in.Response} {
		if m == nil {
			continue
		}
		if s, ok := m.Get("grpc-status"); ok {
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil {
				return -1, true // Envoy: InvalidCode
			}
			return int64(n), true
		}
	}
	return int64(grpchttp.StatusFromHTTP(in.Status)), true
}

func appendGRPCNumber(dst []byte, in *stream.Info) ([]byte, bool) {
	n, ok := GRPCStatus(in)
	return strconv.AppendInt(dst, n, 10), ok
}

func makeGRPCStatus(param string, _ *Options) (op, error) {
	var pick func(grpcName) string
	switch param {
	case "", "CAMEL_STRING":
		pick = func(n grpcName) string { return n.camel }
	case "SNAKE_STRING":
		pick = func(n grpcName) string { return n.snake }
	case "NUMBER":
		return number(appendGRPCNumber), nil
	default:
		return op{}, errorf("GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: %s", param)
	}
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		n, ok := GRPCStatus(in)
		if n >= 0 && n < int64(len(grpcNames)) {
			return append(dst, pick(grpcNames[n])...), ok
		}
		return strconv.AppendInt(dst, n, 10), ok
	}}, nil
}
