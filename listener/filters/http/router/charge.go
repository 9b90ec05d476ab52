package router

import "time"

// findGroups finds the counters of the virtual host's virtual cluster and of the route, where the
// configuration asks for them: vhost.V.vcluster.C and vhost.V.route.R.
func (r *Filter) findGroups() {
	v := r.entry.VirtualHost
	if v == nil {
		return
	}
	if name := v.VirtualCluster(r.request); name != "" {
		r.info.VirtualCluster = name
		r.groups[0] = r.cfg.groups.of(v.Name, "vcluster", name)
	}
	if p := r.entry.StatPrefix; p != "" {
		r.groups[1] = r.cfg.groups.of(v.Name, "route", p)
	}
}

// eachGroup calls f with what findGroups found.
func (r *Filter) eachGroup(f func(*groupStats)) {
	for _, g := range r.groups {
		if g != nil {
			f(g)
		}
	}
}

func (r *Filter) chargeGroups(status int) {
	for _, g := range r.groups {
		if g != nil {
			g.Rq.Inc(status)
		}
	}
}

func (r *Filter) chargeGroupTime(d time.Duration) {
	for _, g := range r.groups {
		if g != nil {
			g.Time.Record(uint64(max(0, d.Milliseconds())))
		}
	}
}
