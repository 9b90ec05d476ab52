package router

import (
	"sync"

	"sidecar/api/stats"
)

// groupStats are those of a virtual cluster or of a route with a stat_prefix.
type groupStats struct {
	Rq            stats.Codes     `stat:"upstream_rq"`
	RqTotal       stats.Counter   `stat:"upstream_rq_total"`
	Retry         stats.Counter   `stat:"upstream_rq_retry"`
	RetryLimit    stats.Counter   `stat:"upstream_rq_retry_limit_exceeded"`
	RetryOverflow stats.Counter   `stat:"upstream_rq_retry_overflow"`
	RetrySuccess  stats.Counter   `stat:"upstream_rq_retry_success"`
	Timeout       stats.Counter   `stat:"upstream_rq_timeout"`
	Time          stats.Histogram `stat:"upstream_rq_time,ms"`
}

// groups makes and finds the stats of virtual clusters and routes. Their number is that of the
// names in the configuration.
type groups struct {
	scope *stats.Scope
	known sync.Map // groupKey -> *groupStats
}

type groupKey struct{ vhost, kind, name string }

func (g *groups) of(vhost, kind, name string) *groupStats {
	key := groupKey{vhost, kind, name}
	if v, ok := g.known.Load(key); ok {
		if s, ok := v.(*groupStats); ok {
			return s
		}
	}
	s := stats.Bind[groupStats](g.scope.Sub("vhost." + vhost + "." + kind + "." + name))
	g.known.Store(key, s)
	return s
}
