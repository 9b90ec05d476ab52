package header

// ID is the index of a well-known name. Names outside the table have ID None and are compared as
// text. The order is of no meaning outside this process.
type ID uint8

// The well-known names: pseudo-headers, what the proxy reads or writes on every request, and what
// codecs have rules for.
const (
	None ID = iota
	Method
	Path
	Authority
	Scheme
	Status
	Protocol
	Accept
	AcceptEncoding
	AccessControlRequestMethod
	Authorization
	CacheControl
	Connection
	ContentEncoding
	ContentLength
	ContentType
	Cookie
	Date
	Etag
	Expect
	GrpcAcceptEncoding
	GrpcMessage
	GrpcStatus
	GrpcTimeout
	HTTP2Settings
	IfNoneMatch
	KeepAlive
	LastModified
	Location
	Origin
	ProxyConnection
	ProxyStatus
	Range
	Referer
	Server
	SetCookie
	TE
	TraceParent
	TraceState
	TransferEncoding
	Upgrade
	UserAgent
	Vary
	Via
	XClientTraceID
	XEnvoyAttemptCount
	XEnvoyDecoratorOperation
	XEnvoyDegraded
	XEnvoyDownstreamServiceCluster
	XEnvoyDownstreamServiceNode
	XEnvoyExpectedRqTimeoutMs
	XEnvoyExternalAddress
	XEnvoyForceTrace
	XEnvoyHedgeOnPerTryTimeout
	XEnvoyImmediateHealthCheckFail
	XEnvoyInternal
	XEnvoyIPTags
	XEnvoyIsTimeoutRetry
	XEnvoyMaxRetries
	XEnvoyOriginalDstHost
	XEnvoyOriginalPath
	XEnvoyOriginalURL
	XEnvoyOverloaded
	XEnvoyRateLimited
	XEnvoyRetriableHeaderNames
	XEnvoyRetriableStatusCodes
	XEnvoyRetryGrpcOn
	XEnvoyRetryOn
	XEnvoyUpstreamAltStatName
	XEnvoyUpstreamRqTimeoutAltResponse
	XEnvoyUpstreamCanary
	XEnvoyUpstreamHealthcheckedCluster
	XEnvoyUpstreamRqPerTryTimeoutMs
	XEnvoyUpstreamRqTimeoutMs
	XEnvoyUpstreamServiceTime
	XForwardedClientCert
	XForwardedFor
	XForwardedHost
	XForwardedPort
	XForwardedProto
	XRequestID
	numIDs
)

type wellKnown struct {
	name string
	// inline marks what Envoy keeps at most once in a header map: adding a second value joins the two
	// with a comma (HeaderMapImpl::appendToHeader; Set-Cookie is not among them).
	inline bool
}

//nolint:gochecknoglobals // immutable table
var names = [numIDs]wellKnown{
	Method:                             {":method", true},
	Path:                               {":path", true},
	Authority:                          {":authority", true},
	Scheme:                             {":scheme", true},
	Status:                             {":status", true},
	Protocol:                           {":protocol", true},
	Accept:                             {"accept", true},
	AcceptEncoding:                     {"accept-encoding", true},
	AccessControlRequestMethod:         {"access-control-request-method", true},
	Authorization:                      {"authorization", true},
	CacheControl:                       {"cache-control", true},
	Connection:                         {"connection", true},
	ContentEncoding:                    {"content-encoding", true},
	ContentLength:                      {"content-length", true},
	ContentType:                        {"content-type", true},
	Cookie:                             {"cookie", false},
	Date:                               {"date", true},
	Etag:                               {"etag", true},
	Expect:                             {"expect", true},
	GrpcAcceptEncoding:                 {"grpc-accept-encoding", true},
	GrpcMessage:                        {"grpc-message", true},
	GrpcStatus:                         {"grpc-status", true},
	GrpcTimeout:                        {"grpc-timeout", true},
	HTTP2Settings:                      {"http2-settings", false},
	IfNoneMatch:                        {"if-none-match", true},
	KeepAlive:                          {"keep-alive", true},
	LastModified:                       {"last-modified", true},
	Location:                           {"location", true},
	Origin:                             {"origin", true},
	ProxyConnection:                    {"proxy-connection", true},
	ProxyStatus:                        {"proxy-status", true},
	Range:                              {"range", true},
	Referer:                            {"referer", true},
	Server:                             {"server", true},
	SetCookie:                          {"set-cookie", false},
	TE:                                 {"te", true},
	TraceParent:                        {"traceparent", false},
	TraceState:                         {"tracestate", false},
	TransferEncoding:                   {"transfer-encoding", true},
	Upgrade:                            {"upgrade", true},
	UserAgent:                          {"user-agent", true},
	Vary:                               {"vary", true},
	Via:                                {"via", true},
	XClientTraceID:                     {"x-client-trace-id", true},
	XEnvoyAttemptCount:                 {"x-envoy-attempt-count", true},
	XEnvoyDecoratorOperation:           {"x-envoy-decorator-operation", true},
	XEnvoyDegraded:                     {"x-envoy-degraded", true},
	XEnvoyDownstreamServiceCluster:     {"x-envoy-downstream-service-cluster", true},
	XEnvoyDownstreamServiceNode:        {"x-envoy-downstream-service-node", true},
	XEnvoyExpectedRqTimeoutMs:          {"x-envoy-expected-rq-timeout-ms", true},
	XEnvoyExternalAddress:              {"x-envoy-external-address", true},
	XEnvoyForceTrace:                   {"x-envoy-force-trace", true},
	XEnvoyHedgeOnPerTryTimeout:         {"x-envoy-hedge-on-per-try-timeout", true},
	XEnvoyImmediateHealthCheckFail:     {"x-envoy-immediate-health-check-fail", true},
	XEnvoyInternal:                     {"x-envoy-internal", true},
	XEnvoyIPTags:                       {"x-envoy-ip-tags", true},
	XEnvoyIsTimeoutRetry:               {"x-envoy-is-timeout-retry", true},
	XEnvoyMaxRetries:                   {"x-envoy-max-retries", true},
	XEnvoyOriginalDstHost:              {"x-envoy-original-dst-host", true},
	XEnvoyOriginalPath:                 {"x-envoy-original-path", true},
	XEnvoyOriginalURL:                  {"x-envoy-original-url", true},
	XEnvoyUpstreamRqTimeoutAltResponse: {"x-envoy-upstream-rq-timeout-alt-response", true},
	XEnvoyOverloaded:                   {"x-envoy-overloaded", true},
	XEnvoyRateLimited:                  {"x-envoy-ratelimited", true},
	XEnvoyRetriableHeaderNames:         {"x-envoy-retriable-header-names", true},
	XEnvoyRetriableStatusCodes:         {"x-envoy-retriable-status-codes", true},
	XEnvoyRetryGrpcOn:                  {"x-envoy-retry-grpc-on", true},
	XEnvoyRetryOn:                      {"x-envoy-retry-on", true},
	XEnvoyUpstreamAltStatName:          {"x-envoy-upstream-alt-stat-name", true},
	XEnvoyUpstreamCanary:               {"x-envoy-upstream-canary", true},
	XEnvoyUpstreamHealthcheckedCluster: {"x-envoy-upstream-healthchecked-cluster", true},
	XEnvoyUpstreamRqPerTryTimeoutMs:    {"x-envoy-upstream-rq-per-try-timeout-ms", true},
	XEnvoyUpstreamRqTimeoutMs:          {"x-envoy-upstream-rq-timeout-ms", true},
	XEnvoyUpstreamServiceTime:          {"x-envoy-upstream-service-time", true},
	XForwardedClientCert:               {"x-forwarded-client-cert", true},
	XForwardedFor:                      {"x-forwarded-for", true},
	XForwardedHost:                     {"x-forwarded-host", true},
	XForwardedPort:                     {"x-forwarded-port", true},
	XForwardedProto:                    {"x-forwarded-proto", true},
	XRequestID:                         {"x-request-id", true},
}

// String returns the lower-case name; "" for None.
func (id ID) String() string { return names[id].name }

// hashSize is a power of two over four times the table's size, so that most buckets hold one name.
const hashSize = 512

//nolint:gochecknoglobals // immutable table, built from names
var buckets = makeBuckets()

func makeBuckets() (t [hashSize][]ID) {
	for id := ID(1); id < numIDs; id++ {
		h := hash(names[id].name)
		t[h] = append(t[h], id)
	}
	return t
}

// hash reads length and three characters: enough to part the table, cheap enough for every header.
func hash[T ~string | ~[]byte](s T) uint32 {
	n := len(s)
	if n == 0 {
		return 0
	}
	h := uint32(n)*31 + uint32(s[0]) + uint32(s[n-1])*131 + uint32(s[n/2])*521 + uint32(s[n*3/4])*61
	return h & (hashSize - 1)
}

// Lookup returns the ID of a lower-case name, None if it is not in the table.
func Lookup[T ~string | ~[]byte](name T) ID {
	for _, id := range buckets[hash(name)] {
		if string(name) == names[id].name {
			return id
		}
	}
	return None
}
