package format

import (
	"strings"
	"time"

	"sidecar/api/stream"
)

func makeStartTime(param string, _ *Options) (op, error) {
	return clockOp(param, false, func(in *stream.Info) time.Time { return in.Start })
}

func makeStartTimeLocal(param string, _ *Options) (op, error) {
	return clockOp(param, true, func(in *stream.Info) time.Time { return in.Start })
}

func makeEmitTime(param string, _ *Options) (op, error) {
	return clockOp(param, false, func(*stream.Info) time.Time { return time.Now() })
}

func makeEmitTimeLocal(param string, _ *Options) (op, error) {
	return clockOp(param, true, func(*stream.Info) time.Time { return time.Now() })
}

func clockOp(param string, local bool, get func(*stream.Info) time.Time) (op, error) {
	c, err := compileClock(param, local)
	if err != nil {
		return op{}, err
	}
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		t := get(in)
		if t.IsZero() {
			return dst, false
		}
		return c.append(dst, t), true
	}}, nil
}

// makeCommonDuration makes COMMON_DURATION(from:to:unit).
func makeCommonDuration(param string, _ *Options) (op, error) {
	parts := strings.Split(param, ":")
	if len(parts) != 3 {
		return op{}, errorf("Invalid common duration configuration: %s.", param)
	}
	var unit time.Duration
	switch parts[2] {
	case "ms":
		unit = time.Millisecond
	case "us":
		unit = time.Microsecond
	case "ns":
		unit = time.Nanosecond
	default:
		return op{}, errorf("Invalid common duration precision: %s.", parts[2])
	}
	from, to := point(parts[0]), point(parts[1])
	return number(func(dst []byte, in *stream.Info) ([]byte, bool) {
		d := between(from(in), to(in))
		if d < 0 {
			return dst, false
		}
		return appendUint(dst, uint64(d/unit))
	}), nil
}

// point is a point of a stream's time. Filters may set others in Envoy, so an unknown name is not
// an error: it is a time that never comes.
func point(name string) func(*stream.Info) time.Duration {
	switch name {
	case "DS_RX_BEG":
		return func(*stream.Info) time.Duration { return 0 }
	case "DS_RX_END":
		return func(in *stream.Info) time.Duration { return in.LastRxDownstream }
	case "US_CX_END", "US_HS_END":
		return func(in *stream.Info) time.Duration {
			if in.Upstream.PoolReady == 0 {
				return stream.Unset
			}
			return in.Upstream.PoolReady
		}
	case "US_TX_BEG":
		return func(in *stream.Info) time.Duration { return in.FirstTxUpstream }
	case "US_TX_END":
		return func(in *stream.Info) time.Duration { return in.LastTxUpstream }
	case "US_RX_BEG":
		return func(in *stream.Info) time.Duration { return in.FirstRxUpstream }
	case "US_RX_END":
		return func(in *stream.Info) time.Duration { return in.LastRxUpstream }
	case "DS_TX_BEG":
		return func(in *stream.Info) time.Duration { return in.FirstTxDownstream }
	case "DS_TX_END":
		return func(in *stream.Info) time.Duration { return in.LastTxDownstream }
	}
	return func(*stream.Info) time.Duration { return stream.Unset }
}
