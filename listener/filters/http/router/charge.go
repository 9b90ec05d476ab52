package router

// chargeRoute counts the response for the virtual host's virtual cluster and for the route, where
// they ask for it: vhost.V.vcluster.C and vhost.V.route.R.
func (r *Filter) chargeRoute(status int) {
	v := r.entry.VirtualHost
	if v == nil {
		return
	}
	if name := v.VirtualCluster(r.request); name != "" {
		r.info.VirtualCluster = name
		r.cfg.groups.of(v.Name, "vcluster", name).Rq.Inc(status)
	}
	if p := r.entry.StatPrefix; p != "" {
		r.cfg.groups.of(v.Name, "route", p).Rq.Inc(status)
	}
}
