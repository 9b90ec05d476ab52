package cluster

import (
	"slices"
	"strings"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/load"
	"sidecar/cluster/outlier"
)

// Status is a cluster as the admin interface shows it (/clusters).
type Status struct {
	Name, ObservabilityName string
	AddedViaAPI             bool
	// Limits of the priorities default and high.
	Limits [2]load.Limits
	// Outlier is nil for clusters without outlier detection.
	Outlier *OutlierStatus
	Hosts   []HostStatus
}

// OutlierStatus is what outlier detection has worked out from the success rates.
type OutlierStatus struct{ External, LocalOrigin outlier.Summary }

// HostStatus is one host of a Status.
type HostStatus struct {
	Addr     stream.Addr
	Hostname string
	Locality host.Locality
	Weight   uint32
	Priority uint32
	Canary   bool
	Health   host.Health
	Flags    host.Flag

	SuccessRate, LocalOriginSuccessRate float64

	CxActive, CxConnectFail, CxTotal                                  int64
	RqActive, RqPendingActive, RqError, RqSuccess, RqTimeout, RqTotal int64
}

// Status returns what /clusters shows. It may be called from any goroutine.
func (c *Cluster) Status() Status {
	conf := c.conf.Load()
	s := Status{
		Name: conf.Name, ObservabilityName: conf.ObservabilityName(),
		AddedViaAPI: c.viaAPI, Limits: conf.limits,
	}
	if conf.outlier != nil {
		s.Outlier = &OutlierStatus{External: outlier.Unknown, LocalOrigin: outlier.Unknown}
		if d := c.detector(); d != nil {
			s.Outlier.External, s.Outlier.LocalOrigin = d.Summaries()
		}
	}
	c.eachHost(func(h *host.Host) { s.Hosts = append(s.Hosts, hostStatus(h)) })
	return s
}

func hostStatus(h *host.Host) HostStatus {
	a := h.Attr()
	s := HostStatus{
		Addr: h.Addr(), Hostname: h.Hostname(), Weight: a.Weight, Priority: a.Priority,
		Canary: a.Canary, Health: a.Health, Flags: h.Flags(),
	}
	s.SuccessRate, s.LocalOriginSuccessRate = outlier.Rates(h)
	if a.Locality != nil {
		s.Locality = *a.Locality
	}
	if n := h.PeekCounters(); n != nil {
		s.CxActive, s.CxConnectFail = n.CxActive.Value(), int64(n.CxConnectFail.Value())
		s.CxTotal, s.RqActive = int64(n.CxTotal.Value()), n.RqActive.Value()
		s.RqPendingActive, s.RqError = n.RqPendingActive.Value(), int64(n.RqError.Value())
		s.RqSuccess, s.RqTimeout = int64(n.RqSuccess.Value()), int64(n.RqTimeout.Value())
		s.RqTotal = int64(n.RqTotal.Value())
	}
	return s
}

// Dump is a cluster as config_dump shows it.
type Dump struct {
	Name        string
	VersionInfo string
	LastUpdated time.Time
	AddedViaAPI bool
	Warming     bool
	// Raw is the serialized envoy.config.cluster.v3.Cluster. It is shared: don't write.
	Raw []byte
}

func (c *Cluster) dump(warming bool) Dump {
	c.mu.Lock()
	info, since := c.info, c.since
	c.mu.Unlock()
	conf := c.conf.Load()
	return Dump{
		Name: conf.Name, VersionInfo: info, LastUpdated: since, AddedViaAPI: c.viaAPI,
		Warming: warming, Raw: conf.raw,
	}
}

// Dumps returns every cluster, live and warming, by name, and the version_info of the last CDS update.
func (m *Manager) Dumps() (version string, dumps []Dump) {
	m.mu.Lock()
	version = m.version
	live, warming := make([]*Cluster, 0, len(m.entries)), []*Cluster(nil)
	for _, e := range m.entries {
		if e.live != nil {
			live = append(live, e.live)
		}
		if e.warming != nil {
			warming = append(warming, e.warming)
		}
	}
	m.mu.Unlock()
	for _, c := range live {
		dumps = append(dumps, c.dump(false))
	}
	for _, c := range warming {
		dumps = append(dumps, c.dump(true))
	}
	slices.SortFunc(dumps, func(a, b Dump) int { return strings.Compare(a.Name, b.Name) })
	return version, dumps
}

// Statuses returns the status of every live cluster, by name.
func (m *Manager) Statuses() []Status {
	var out []Status
	m.Each(func(c *Cluster) { out = append(out, c.Status()) })
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Endpoints returns the hosts of a cluster as a config_dump with include_eds needs them: the set they
// are in, and the name that EDS knows them by (the cluster's own for other kinds).
func (c *Cluster) Endpoints() (service string, set *host.Set) {
	conf := c.conf.Load()
	service = conf.Name
	if conf.eds != nil {
		service = conf.eds.service
	}
	return service, c.set.Load()
}
