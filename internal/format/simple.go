package format

import (
	"encoding/hex"
	"math/rand/v2"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// simpleOp returns the operator of a command that takes neither a parameter nor a length; its text
// is nil if there is none of that name.
func simpleOp(name string) op {
	if v := simpleHTTP(name); v.text != nil {
		return v
	}
	if v := simpleConnection(name); v.text != nil {
		return v
	}
	if v := simpleTraffic(name); v.text != nil {
		return v
	}
	return simpleTLS(name)
}

func simpleHTTP(name string) op {
	switch name {
	case "PROTOCOL":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendString(dst, in.Protocol.String())
		}}
	case "RESPONSE_CODE":
		return number(func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendUint(dst, uint64(in.Status))
		})
	case "RESPONSE_FLAGS":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return in.Flags.AppendTo(dst, 0), true
		}}
	case "RESPONSE_FLAGS_LONG":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return in.Flags.AppendTo(dst, 1), true
		}}
	case "ROUTE_NAME":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendString(dst, in.RouteName)
		}}
	case "VIRTUAL_CLUSTER_NAME":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendString(dst, in.VirtualCluster)
		}}
	case "STREAM_ID":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendString(dst, in.RequestID)
		}}
	case "UNIQUE_ID":
		return op{text: appendUUID}
	case "ACCESS_LOG_TYPE":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return append(dst, in.LogType.String()...), true
		}}
	case "CUSTOM_FLAGS":
		// Set by filters that are not here: empty, and known to be.
		return op{text: func(dst []byte, _ *stream.Info) ([]byte, bool) { return dst, true }}
	case "TRACE_ID", "SPAN_ID":
		return op{text: func(dst []byte, _ *stream.Info) ([]byte, bool) { return dst, false }}
	case "GRPC_STATUS_NUMBER":
		return number(appendGRPCNumber)
	case "UPSTREAM_REQUEST_ATTEMPT_COUNT":
		return number(func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendUint(dst, uint64(in.Attempts))
		})
	}
	return simpleDuration(name)
}

func simpleDuration(name string) op {
	switch name {
	case "DURATION":
		return duration(func(in *stream.Info) time.Duration {
			if in.Complete != stream.Unset {
				return in.Complete
			}
			return time.Since(in.Start)
		})
	case "REQUEST_DURATION":
		return duration(func(in *stream.Info) time.Duration { return in.LastRxDownstream })
	case "REQUEST_TX_DURATION":
		return duration(func(in *stream.Info) time.Duration { return in.LastTxUpstream })
	case "RESPONSE_DURATION":
		return duration(func(in *stream.Info) time.Duration { return in.FirstRxUpstream })
	case "RESPONSE_TX_DURATION":
		return duration(func(in *stream.Info) time.Duration {
			return between(in.FirstRxUpstream, in.LastTxDownstream)
		})
	}
	return op{}
}

// duration makes an operator that prints milliseconds.
func duration(get func(*stream.Info) time.Duration) op {
	return number(func(dst []byte, in *stream.Info) ([]byte, bool) {
		d := get(in)
		if d < 0 {
			return dst, false
		}
		return appendUint(dst, uint64(d/time.Millisecond))
	})
}

func between(from, to time.Duration) time.Duration {
	if from == stream.Unset || to == stream.Unset {
		return stream.Unset
	}
	return to - from
}

func simpleConnection(name string) op {
	switch name {
	case "CONNECTION_TERMINATION_DETAILS":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			if in.ConnectionTermDetail != "" {
				return appendString(dst, in.ConnectionTermDetail)
			}
			return appendString(dst, in.Conn.TerminationDetail)
		}}
	case "UPSTREAM_TRANSPORT_FAILURE_REASON":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendSpaceless(dst, in.Upstream.TransportFailure)
		}}
	case "DOWNSTREAM_TRANSPORT_FAILURE_REASON":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendSpaceless(dst, in.Conn.TransportFailure)
		}}
	case "UPSTREAM_CLUSTER":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendString(dst, in.Upstream.Cluster)
		}}
	case "UPSTREAM_CLUSTER_RAW":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			// Upstream.Cluster is set once the cluster was found.
			return append(dst, in.Cluster...), in.Upstream.Cluster != ""
		}}
	case "UPSTREAM_HOST_NAME":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			if in.Upstream.HostName != "" {
				return appendString(dst, in.Upstream.HostName)
			}
			return appendString(dst, in.Upstream.Host.String())
		}}
	case "UPSTREAM_PROTOCOL":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendString(dst, in.Upstream.Protocol.String())
		}}
	case "UPSTREAM_CONNECTION_ID":
		return number(func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendUint(dst, in.Upstream.ConnID)
		})
	case "CONNECTION_ID":
		return number(func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendUint(dst, in.Conn.ID)
		})
	case "FILTER_CHAIN_NAME":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendString(dst, in.Conn.Chain)
		}}
	}
	if v := simpleAddress(name); v.text != nil {
		return v
	}
	return op{}
}

func simpleTraffic(name string) op {
	if get := trafficOf(name); get != nil {
		return number(func(dst []byte, in *stream.Info) ([]byte, bool) { return appendUint(dst, get(in)) })
	}
	return op{}
}

func trafficOf(name string) func(*stream.Info) uint64 {
	switch name {
	case "BYTES_RECEIVED":
		return func(in *stream.Info) uint64 { return in.BytesReceived }
	case "BYTES_SENT":
		return func(in *stream.Info) uint64 { return in.BytesSent }
	case "REQUEST_HEADERS_BYTES":
		return func(in *stream.Info) uint64 { return size(in.Request) }
	case "RESPONSE_HEADERS_BYTES":
		return func(in *stream.Info) uint64 { return size(in.Response) }
	case "RESPONSE_TRAILERS_BYTES":
		return func(in *stream.Info) uint64 { return size(in.ResponseTrailers) }
	case "DOWNSTREAM_WIRE_BYTES_SENT":
		return func(in *stream.Info) uint64 { return in.DownstreamWire.WireSent }
	case "DOWNSTREAM_WIRE_BYTES_RECEIVED":
		return func(in *stream.Info) uint64 { return in.DownstreamWire.WireReceived }
	case "DOWNSTREAM_HEADER_BYTES_SENT":
		return func(in *stream.Info) uint64 { return in.DownstreamWire.HeaderSent }
	case "DOWNSTREAM_HEADER_BYTES_RECEIVED":
		return func(in *stream.Info) uint64 { return in.DownstreamWire.HeaderReceived }
	case "UPSTREAM_WIRE_BYTES_SENT":
		return func(in *stream.Info) uint64 { return in.UpstreamWire.WireSent }
	case "UPSTREAM_WIRE_BYTES_RECEIVED":
		return func(in *stream.Info) uint64 { return in.UpstreamWire.WireReceived }
	case "UPSTREAM_HEADER_BYTES_SENT":
		return func(in *stream.Info) uint64 { return in.UpstreamWire.HeaderSent }
	case "UPSTREAM_HEADER_BYTES_RECEIVED":
		return func(in *stream.Info) uint64 { return in.UpstreamWire.HeaderReceived }
	}
	return nil
}

func size(m *header.Map) uint64 {
	if m == nil {
		return 0
	}
	return uint64(m.Bytes())
}

// appendSpaceless appends text with its spaces replaced: it is one field of a log line.
func appendSpaceless(dst []byte, s string) ([]byte, bool) {
	n := len(dst)
	dst = append(dst, s...)
	for i := n; i < len(dst); i++ {
		if c := dst[i]; c == ' ' || c >= '\t' && c <= '\r' {
			dst[i] = '_'
		}
	}
	return dst, s != ""
}

// appendUUID appends a random UUID, version 4.
func appendUUID(dst []byte, _ *stream.Info) ([]byte, bool) {
	hi, lo := rand.Uint64(), rand.Uint64()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 2<<62
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
	}
	for i, group := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			dst = append(dst, '-')
		}
		start := [...]int{0, 4, 6, 8, 10}[i]
		dst = hex.AppendEncode(dst, b[start:start+group])
	}
	return dst, true
}
