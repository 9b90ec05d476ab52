package pool

import (
	"sidecar/api/stream"
	"sidecar/cluster/dial"
)

// overflow is Envoy's answer to a circuit breaker: 503, x-envoy-overloaded (which the reply adds for
// the flag), flag UO.
func overflow() *stream.Fault {
	return &stream.Fault{
		Side: stream.Upstream, Reason: stream.ReasonOverflow, Flag: stream.UpstreamOverflow,
	}
}

// poolOverflow is Envoy's answer when max_connection_pools allows no further pool: as if there was no
// host (ClusterManagerImpl::ThreadLocalClusterManagerImpl::ClusterEntry::httpConnPoolImpl).
func poolOverflow() *stream.Fault {
	return &stream.Fault{
		Side: stream.Upstream, Flag: stream.NoHealthyUpstream, Status: 503,
		Details: "no_healthy_upstream", Body: "no healthy upstream",
	}
}

// terminated is a connection that ended between being chosen and being used.
func terminated(reused bool) *stream.Fault {
	return &stream.Fault{
		Side: stream.Upstream, Reason: stream.ReasonConnectionTermination,
		Flag: stream.UpstreamConnectionTermination, Reused: reused,
	}
}

func connectFailed(e *dial.Error) *stream.Fault {
	return &stream.Fault{
		Side: stream.Upstream, Reason: e.Reason, Flag: stream.UpstreamConnectionFailure,
		Transport: e.Transport, Err: e,
	}
}

// closing is given to streams when the process ends.
func closing() *stream.Fault {
	return &stream.Fault{
		Side: stream.Upstream, Reason: stream.ReasonLocalConnectionFailure,
		Flag: stream.UpstreamConnectionFailure,
	}
}
