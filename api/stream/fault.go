package stream

import "strings"

// Flag is a set of Envoy's response flags (CoreResponseFlag).
type Flag uint64

// The response flags, in Envoy's order, which is that of log lines.
const (
	FailedLocalHealthCheck Flag = 1 << iota
	NoHealthyUpstream
	UpstreamRequestTimeout
	LocalReset
	UpstreamRemoteReset
	UpstreamConnectionFailure
	UpstreamConnectionTermination
	UpstreamOverflow
	NoRouteFound
	DelayInjected
	FaultInjected
	RateLimited
	UnauthorizedExternalService
	RateLimitServiceError
	DownstreamConnectionTermination
	UpstreamRetryLimitExceeded
	StreamIdleTimeout
	InvalidEnvoyRequestHeaders
	DownstreamProtocolError
	UpstreamMaxStreamDurationReached
	ResponseFromCacheFilter
	NoFilterConfigFound
	DurationTimeout
	UpstreamProtocolError
	NoClusterFound
	OverloadManager
	DNSResolutionFailed
	DropOverload
	DownstreamRemoteReset
	UnconditionalDropOverload
	numFlags = iota
)

// FailureFirst is no flag: it says that the failure was noted before UpstreamRetryLimitExceeded, as
// Envoy's TCP proxy does, and has it printed first.
const FailureFirst Flag = 1 << 63

//nolint:gochecknoglobals // immutable table
var flagNames = [numFlags][2]string{
	{"LH", "FailedLocalHealthCheck"},
	{"UH", "NoHealthyUpstream"},
	{"UT", "UpstreamRequestTimeout"},
	{"LR", "LocalReset"},
	{"UR", "UpstreamRemoteReset"},
	{"UF", "UpstreamConnectionFailure"},
	{"UC", "UpstreamConnectionTermination"},
	{"UO", "UpstreamOverflow"},
	{"NR", "NoRouteFound"},
	{"DI", "DelayInjected"},
	{"FI", "FaultInjected"},
	{"RL", "RateLimited"},
	{"UAEX", "UnauthorizedExternalService"},
	{"RLSE", "RateLimitServiceError"},
	{"DC", "DownstreamConnectionTermination"},
	{"URX", "UpstreamRetryLimitExceeded"},
	{"SI", "StreamIdleTimeout"},
	{"IH", "InvalidEnvoyRequestHeaders"},
	{"DPE", "DownstreamProtocolError"},
	{"UMSDR", "UpstreamMaxStreamDurationReached"},
	{"RFCF", "ResponseFromCacheFilter"},
	{"NFCF", "NoFilterConfigFound"},
	{"DT", "DurationTimeout"},
	{"UPE", "UpstreamProtocolError"},
	{"NC", "NoClusterFound"},
	{"OM", "OverloadManagerTerminated"},
	{"DF", "DnsResolutionFailed"},
	{"DO", "DropOverload"},
	{"DR", "DownstreamRemoteReset"},
	{"UDO", "UnconditionalDropOverload"},
}

//nolint:gochecknoglobals // immutable table
var retryFlag = [2]string{"URX", "UpstreamRetryLimitExceeded"}

// String returns the short names joined with commas, "-" for none, as %RESPONSE_FLAGS% prints.
func (f Flag) String() string { return string(f.AppendTo(nil, 0)) }

// Long returns the long names, as %RESPONSE_FLAGS_LONG% prints.
func (f Flag) Long() string { return string(f.AppendTo(nil, 1)) }

// AppendTo appends the short (0) or long (1) names.
func (f Flag) AppendTo(b []byte, form int) []byte {
	if f == 0 {
		return append(b, '-')
	}
	first := true
	// Envoy prints flags in the order they were set, and its router sets that of used up retries before
	// that of the failure that the last of them met.
	if f&(UpstreamRetryLimitExceeded|FailureFirst) == UpstreamRetryLimitExceeded {
		b, first = append(b, retryFlag[form]...), false
		f &^= UpstreamRetryLimitExceeded
	}
	for i := range flagNames {
		if f&(1<<i) == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		b, first = append(b, flagNames[i][form]...), false
	}
	return b
}

// FlagByName finds a flag by its short name.
func FlagByName(short string) (Flag, bool) {
	for i := range flagNames {
		if flagNames[i][0] == short {
			return 1 << i, true
		}
	}
	return 0, false
}

// Side is the peer, or we ourselves, where a failure began.
type Side uint8

// The sides.
const (
	Internal Side = iota
	Downstream
	Upstream
)

// Reason is what ended an upstream stream (Envoy's StreamResetReason and PoolFailureReason); its
// text stands in local reply bodies and details.
type Reason uint8

// The reasons, with Envoy's text in Reason.String.
const (
	ReasonNone Reason = iota
	ReasonLocalReset
	ReasonLocalRefusedStream
	ReasonRemoteReset
	ReasonRemoteRefusedStream
	ReasonLocalConnectionFailure
	ReasonRemoteConnectionFailure
	ReasonConnectionTimeout
	ReasonConnectionTermination
	ReasonOverflow
	ReasonConnectError
	ReasonProtocolError
	ReasonOverloadManager
	ReasonHTTP1PrematureUpstreamHalfClose
)

//nolint:gochecknoglobals // immutable table
var reasonNames = [...]string{
	"", "local reset", "local refused stream reset", "remote reset", "remote refused stream reset",
	"local connection failure", "remote connection failure", "connection timeout",
	"connection termination", "overflow", "remote error with CONNECT request", "protocol error",
	"overload manager reset", "http1 premature upstream half close",
}

// String returns Envoy's text (Utility::resetReasonToString).
func (r Reason) String() string { return reasonNames[r] }

// Token is String with underscores, as details hold it.
func (r Reason) Token() string { return strings.ReplaceAll(reasonNames[r], " ", "_") }

// Fault is why a stream failed: the one failure type of the data path. It is made where the failure
// happened and turned into a response in one place (hcm/reply.go).
type Fault struct {
	Err     error
	Details string // response_code_details, without spaces
	Body    string // of the local reply
	// Transport is the transport failure text (UPSTREAM_TRANSPORT_FAILURE_REASON).
	Transport string
	Flag      Flag
	Status    int // of the local reply; 0 when the side's failure decides it
	Reason    Reason
	Side      Side
	// Close says that the downstream connection cannot be used any further.
	Close bool
	// Reused says that the failure is that of a reused connection which the peer had closed before
	// it saw the request: safe to repeat on another connection.
	Reused bool
}

// Error describes the fault for logs.
func (f *Fault) Error() string {
	s := f.Details
	if s == "" {
		s = f.Reason.String()
	}
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }
