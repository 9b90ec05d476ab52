package format

import (
	"strconv"
	"strings"
)

// param says whether a command may have a parameter.
type param uint8

const (
	paramNone param = iota
	paramOptional
	paramRequired
)

// definition is a command that takes a parameter or a length.
type definition struct {
	make      func(param string, o *Options) (op, error)
	param     param
	length    bool
	extension bool // needs to be listed in Options.Extensions
}

// commands is the table of the commands with parameters; those without are in simpleOp.
func commands() map[string]definition {
	return map[string]definition{
		"REQ":              {makeRequestHeader, paramRequired, true, false},
		"REQUEST_HEADER":   {makeRequestHeader, paramRequired, true, false},
		"RESP":             {makeResponseHeader, paramRequired, true, false},
		"RESPONSE_HEADER":  {makeResponseHeader, paramRequired, true, false},
		"TRAILER":          {makeResponseTrailer, paramRequired, true, false},
		"RESPONSE_TRAILER": {makeResponseTrailer, paramRequired, true, false},

		"REQ_WITHOUT_QUERY": {makeRequestWithoutQuery, paramRequired, true, true},

		"START_TIME":       {makeStartTime, paramOptional, false, false},
		"START_TIME_LOCAL": {makeStartTimeLocal, paramOptional, false, false},
		"EMIT_TIME":        {makeEmitTime, paramOptional, false, false},
		"EMIT_TIME_LOCAL":  {makeEmitTimeLocal, paramOptional, false, false},
		"COMMON_DURATION":  {makeCommonDuration, paramRequired, false, false},

		"DYNAMIC_METADATA":  {makeDynamicMetadata, paramRequired, true, false},
		"CLUSTER_METADATA":  {makeClusterMetadata, paramRequired, true, false},
		"UPSTREAM_METADATA": {makeUpstreamMetadata, paramRequired, true, false},
		"METADATA":          {makeMetadata, paramOptional, true, false},
		"FILTER_STATE":      {makeFilterState, paramOptional, true, false},

		"HOSTNAME":              {makeHostname, paramNone, false, false},
		"LOCAL_REPLY_BODY":      {makeLocalReplyBody, paramNone, false, false},
		"ENVIRONMENT":           {makeEnvironment, paramRequired, true, false},
		"GRPC_STATUS":           {makeGRPCStatus, paramOptional, false, false},
		"PATH":                  {makePath, paramOptional, true, false},
		"QUERY_PARAM":           {makeQueryParam, paramRequired, true, false},
		"QUERY_PARAMS":          {makeQueryParams, paramOptional, true, false},
		"REQUESTED_SERVER_NAME": {makeServerName, paramOptional, false, false},
		"RESPONSE_CODE_DETAILS": {makeDetails, paramOptional, false, false},

		"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":        {makeMasked(downstreamRemote), paramOptional, false, false},
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": {makeMasked(downstreamDirect), paramOptional, false, false},
		"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         {makeMasked(downstreamLocal), paramOptional, false, false},
		"DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT":  {makeMasked(downstreamDirectLocal), paramOptional, false, false},
		"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":           {makeMasked(upstreamLocal), paramOptional, false, false},
		"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":          {makeMasked(upstreamRemote), paramOptional, false, false},

		"DOWNSTREAM_PEER_CERT_V_START": {makeCertStart(downstreamPeer), paramOptional, false, false},
		"DOWNSTREAM_PEER_CERT_V_END":   {makeCertEnd(downstreamPeer), paramOptional, false, false},
		"UPSTREAM_PEER_CERT_V_START":   {makeCertStart(upstreamPeer), paramOptional, false, false},
		"UPSTREAM_PEER_CERT_V_END":     {makeCertEnd(upstreamPeer), paramOptional, false, false},

		"COALESCE": {makeCoalesce, paramRequired, true, false},
	}
}

// unsupported tells whether Envoy knows a command that this proxy doesn't.
func unsupported(name string) bool {
	if strings.HasSuffix(name, "_ENDPOINT_ID") {
		return true
	}
	return contains([]string{
		"CEL", "TYPED_CEL", "BYTES_RETRANSMITTED", "PACKETS_RETRANSMITTED", "ROUNDTRIP_DURATION",
		"DOWNSTREAM_HANDSHAKE_DURATION", "UPSTREAM_CONNECTION_POOL_READY_DURATION",
		"UPSTREAM_HOSTS_ATTEMPTED", "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
		"UPSTREAM_HOST_NAMES_ATTEMPTED", "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
		"UPSTREAM_HOST_NAME_WITHOUT_PORT", "UPSTREAM_DETECTED_CLOSE_TYPE",
		"DOWNSTREAM_DETECTED_CLOSE_TYPE", "UPSTREAM_LOCAL_CLOSE_REASON",
		"DOWNSTREAM_LOCAL_CLOSE_REASON", "UPSTREAM_FILTER_STATE", "DOWNSTREAM_CX_RTT", "ROUTE_RESOLUTION_COUNT",
		"ROUTE_RESOLUTION_TIME_US", "XFCC_VALUE", "FILE_CONTENT", "SECRET", "DYNAMIC_MODULE",
		"UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
		"DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
	}, name)
}

// number makes an operator whose text is a JSON number.
func number(text appender) op { return op{text: text, raw: true} }

func appendUint(dst []byte, v uint64) ([]byte, bool) { return strconv.AppendUint(dst, v, 10), true }

func appendString(dst []byte, s string) ([]byte, bool) { return append(dst, s...), s != "" }
