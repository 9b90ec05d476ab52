package route

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"sidecar/cluster/lb"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

// RetryOn is a set of conditions under which a request is sent again.
type RetryOn uint32

// The conditions of retry_on and of x-envoy-retry-on and x-envoy-retry-grpc-on.
const (
	Retry5xx RetryOn = 1 << iota
	RetryGatewayError
	RetryReset
	RetryResetBeforeRequest
	RetryConnectFailure
	RetryEnvoyRateLimited
	RetryRetriable4xx
	RetryRefusedStream
	RetryRetriableStatusCodes
	RetryRetriableHeaders
	RetryHTTP3PostConnectFailure
	RetryGRPCCancelled
	RetryGRPCDeadlineExceeded
	RetryGRPCInternal
	RetryGRPCResourceExhausted
	RetryGRPCUnavailable
)

// ParseRetryOn reads a list of conditions; those that it doesn't know are skipped and make valid
// false.
func ParseRetryOn(list string) (on RetryOn, valid bool) {
	valid = true
	for list != "" {
		var item string
		item, list, _ = strings.Cut(list, ",")
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		bit := retryOnByName(item)
		on, valid = on|bit, valid && bit != 0
	}
	return on, valid
}

func retryOnByName(name string) RetryOn {
	switch name {
	case "5xx":
		return Retry5xx
	case "gateway-error":
		return RetryGatewayError
	case "reset":
		return RetryReset
	case "reset-before-request":
		return RetryResetBeforeRequest
	case "connect-failure":
		return RetryConnectFailure
	case "envoy-ratelimited":
		return RetryEnvoyRateLimited
	case "retriable-4xx":
		return RetryRetriable4xx
	case "refused-stream":
		return RetryRefusedStream
	case "retriable-status-codes":
		return RetryRetriableStatusCodes
	case "retriable-headers":
		return RetryRetriableHeaders
	case "http3-post-connect-failure":
		return RetryHTTP3PostConnectFailure
	case "cancelled":
		return RetryGRPCCancelled
	case "deadline-exceeded":
		return RetryGRPCDeadlineExceeded
	case "internal":
		return RetryGRPCInternal
	case "resource-exhausted":
		return RetryGRPCResourceExhausted
	case "unavailable":
		return RetryGRPCUnavailable
	}
	return 0
}

// RetryPolicy is a compiled RetryPolicy. Read only.
type RetryPolicy struct {
	On         RetryOn
	NumRetries uint32
	// PerTryTimeout and PerTryIdleTimeout: 0 is none.
	PerTryTimeout     time.Duration
	PerTryIdleTimeout time.Duration
	// BaseInterval and MaxInterval of the back-off; Unset leaves Envoy's 25 ms and ten times the
	// base.
	BaseInterval time.Duration
	MaxInterval  time.Duration
	StatusCodes  []uint32
	// ResponseHeaders are retriable_headers: any of them in a response makes it retriable.
	ResponseHeaders []match.Header
	// RequestHeaders are retriable_request_headers: if there are any, a request without one of them
	// is not retried.
	RequestHeaders []match.Header
	// PreviousHosts avoids hosts that were tried, in up to HostSelectionAttempts picks.
	PreviousHosts         bool
	HostSelectionAttempts int64
	// OmitCanary and OmitMetadata, if not nil, avoid hosts that are canaries or labelled so.
	OmitCanary   bool
	OmitMetadata *lb.Labels
	// PreviousPriorities, if not 0, avoids priorities that were tried; it is the update_frequency.
	PreviousPriorities int32
	// RateLimited is the back-off that response headers ask for; nil if there is none.
	RateLimited *RateLimitedBackOff
}

// RateLimitedBackOff reads from a response when to try again.
type RateLimitedBackOff struct {
	Headers     []ResetHeader
	MaxInterval time.Duration
}

// ResetHeader is a header that says when to try again, in seconds from now or as a Unix time.
type ResetHeader struct {
	Name     string
	UnixTime bool
}

func (c *compiler) retryPolicy(p *config.Path, m *routev3.RetryPolicy) *RetryPolicy {
	retryFields.Check(p, m, c.errs)
	r := &RetryPolicy{
		NumRetries:            config.Value(m.GetNumRetries(), 1),
		PerTryTimeout:         config.Duration(p.Field("per_try_timeout"), m.GetPerTryTimeout(), 0, c.errs),
		PerTryIdleTimeout:     config.Duration(p.Field("per_try_idle_timeout"), m.GetPerTryIdleTimeout(), 0, c.errs),
		StatusCodes:           append([]uint32(nil), m.GetRetriableStatusCodes()...),
		ResponseHeaders:       match.CompileHeaders(p.Field("retriable_headers"), m.GetRetriableHeaders(), c.errs),
		RequestHeaders:        match.CompileHeaders(p.Field("retriable_request_headers"), m.GetRetriableRequestHeaders(), c.errs),
		HostSelectionAttempts: 1,
		BaseInterval:          Unset,
		MaxInterval:           Unset,
	}
	// Envoy skips conditions that it doesn't know, and says so in its log.
	on, valid := ParseRetryOn(m.GetRetryOn())
	if r.On = on; !valid && c.env.Filter.Log != nil {
		c.env.Filter.Log.Warn("unknown conditions are ignored", "field", p.Field("retry_on").String(),
			"value", m.GetRetryOn())
	}
	if n := m.GetHostSelectionRetryMaxAttempts(); n != 0 {
		r.HostSelectionAttempts = n
	}
	for i, h := range m.GetRetryHostPredicate() {
		c.hostPredicate(p.Field("retry_host_predicate").Index(i), h, r)
	}
	r.PreviousPriorities = c.previousPriorities(p.Field("retry_priority"), m.GetRetryPriority())
	c.backOff(p.Field("retry_back_off"), m.GetRetryBackOff(), r)
	r.RateLimited = c.rateLimitedBackOff(p.Field("rate_limited_retry_back_off"), m.GetRateLimitedRetryBackOff())
	return r
}

func (c *compiler) previousPriorities(p *config.Path, m *routev3.RetryPolicy_RetryPriority) int32 {
	if m.GetName() == "" && m.GetTypedConfig() == nil {
		return 0
	}
	retryPriorityFields.Check(p, m, c.errs)
	pp, ok := config.OpenAs[*previousprioritiesv3.PreviousPrioritiesConfig](p.Field("typed_config"),
		m.GetTypedConfig(), c.errs)
	if !ok {
		return 0
	}
	return pp.GetUpdateFrequency()
}

// leastInterval is what shorter back-off intervals are taken for.
const leastInterval = time.Millisecond

func (c *compiler) backOff(p *config.Path, m *routev3.RetryPolicy_RetryBackOff, r *RetryPolicy) {
	if m == nil {
		return
	}
	backOffFields.Check(p, m, c.errs)
	r.BaseInterval = max(leastInterval, c.optional(p.Field("base_interval"), m.GetBaseInterval()))
	if m.GetMaxInterval() == nil {
		return
	}
	r.MaxInterval = max(leastInterval, c.optional(p.Field("max_interval"), m.GetMaxInterval()))
	if r.MaxInterval < r.BaseInterval {
		c.errs.Add(p.Field("max_interval"),
			"retry_policy.max_interval must greater than or equal to the base_interval")
	}
}

func (c *compiler) rateLimitedBackOff(
	p *config.Path, m *routev3.RetryPolicy_RateLimitedRetryBackOff,
) *RateLimitedBackOff {
	if m == nil {
		return nil
	}
	limitedBackOffFields.Check(p, m, c.errs)
	out := &RateLimitedBackOff{
		MaxInterval: max(leastInterval,
			config.Duration(p.Field("max_interval"), m.GetMaxInterval(), 300*time.Second, c.errs)),
	}
	for i, h := range m.GetResetHeaders() {
		resetHeaderFields.Check(p.Field("reset_headers").Index(i), h, c.errs)
		out.Headers = append(out.Headers, ResetHeader{
			Name: match.ToLower(h.GetName()), UnixTime: h.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP,
		})
	}
	return out
}
